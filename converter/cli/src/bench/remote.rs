//! A machine elsewhere: a folder there that lasts as long as this process, files put into it, and
//! commands run in it.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// How often a running command is looked after.
const PAUSE: Duration = Duration::from_millis(20);
/// Time to wait for the remaining output of a command that has exited.
const LAST_OUTPUT: Duration = Duration::from_secs(2);
/// Maximum number of bytes read from each output stream of a command on a board.
const MAX_OUTPUT: u64 = 1 << 20;
/// Maximum length in bytes of each line that a board sends when it connects.
const MAX_LINE: u64 = 4096;
/// Maximum connection timeout that is passed to ssh, in seconds.
const MAX_CONNECT: u64 = 15;

/// Makes a folder and tells it, and what the processor is; then waits until whoever asked has
/// gone, in whatever way, ends what still runs and removes the folder. In single quotes, so without
/// any.
const LEASE: &str = r#"d=$(mktemp -d "${TMPDIR:-BASE}/hardtack.XXXXXX") || exit 1
trap "[ -f \"$d/pid\" ] && kill -9 \$(cat \"$d/pid\") 2>/dev/null; rm -rf \"$d\"" EXIT
trap "exit 1" HUP INT TERM PIPE
uname -m
echo "$d"
cat >/dev/null"#;

/// How commands get there.
#[derive(Clone, Debug)]
enum Way {
    /// The program of `--ssh` with its options, and whom to ask.
    Ssh { command: Vec<String>, host: String },
    /// Android's bridge, and the serial number of the device.
    Adb { serial: Option<String> },
}

/// A folder on another machine. It goes when this is dropped.
pub struct Remote {
    way: Way,
    address: String,
    /// Where the connection is that others go through.
    _control: tempfile::TempDir,
    lease: Child,
    /// What the processor is, as the system calls it.
    pub processor: String,
    folder: String,
    timeout: Duration,
}

/// How a command ended.
pub struct Finished {
    status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    stderr: String,
}

impl Remote {
    /// Connects. `address`: `user@host` for ssh, `adb` or `adb:SERIAL`; `ssh`: the command that
    /// connects, with its options.
    pub fn connect(address: &str, ssh: &str, timeout: Duration) -> anyhow::Result<Remote> {
        let control = tempfile::Builder::new().prefix("hardtack-").tempdir()?;
        let way = match address.split_once(':') {
            Some(("adb", serial)) => Way::Adb { serial: Some(serial.into()) },
            _ if address == "adb" => Way::Adb { serial: None },
            _ => {
                let mut command: Vec<String> = ssh.split_whitespace().map(str::to_owned).collect();
                if command.is_empty() || address.starts_with('-') {
                    bail!("--board {address}: write it as user@host, adb, or adb:SERIAL");
                }
                let path = control.path().join("connection");
                let seconds = timeout.as_secs().clamp(1, MAX_CONNECT);
                for option in [
                    &format!("ConnectTimeout={seconds}"),
                    "ServerAliveInterval=5",
                    "ServerAliveCountMax=4",
                    "ControlMaster=auto",
                    "ControlPersist=no",
                    &format!("ControlPath={}", path.display()),
                ] {
                    command.extend(["-o".into(), option.into()]);
                }
                Way::Ssh { command, host: address.into() }
            }
        };
        let base = if matches!(way, Way::Adb { .. }) { "/data/local/tmp" } else { "/tmp" };
        let mut lease = way
            .command(&LEASE.replace("BASE", base))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{address}: {} cannot be started", way.program()))?;
        let answers = lines(lease.stdout.take().expect("it is a pipe"));
        let said = heard(lease.stderr.take().expect("it is a pipe"));
        let began = Instant::now();
        let answer = || answers.recv_timeout(timeout.saturating_sub(began.elapsed())).ok();
        let (Some(processor), Some(folder)) = (answer(), answer()) else {
            let late = began.elapsed() >= timeout;
            let _ = lease.kill();
            let _ = lease.wait();
            if late {
                bail!(
                    "{address}: no answer within {} seconds; use --timeout to wait longer",
                    timeout.as_secs()
                );
            }
            let said = said.recv_timeout(LAST_OUTPUT).unwrap_or_default();
            bail!("{address}: cannot be reached: {}", last_line(&said.text));
        };
        let address = address.to_owned();
        Ok(Remote { way, address, _control: control, lease, processor, folder, timeout })
    }

    /// Puts a file into the folder.
    pub fn put(&self, name: &str, bytes: &[u8], executable: bool) -> anyhow::Result<()> {
        let mode = if executable { "755" } else { "644" };
        let path = format!("{}/{name}", self.folder);
        let script = format!("cat > {path} && chmod {mode} {path}");
        let finished = self.finish(self.way.command(&script), bytes)?;
        if !finished.status.success() {
            let said = last_line(&finished.stderr);
            bail!(
                "{}: {name} ({} bytes) cannot be written there: {said}; nothing is left behind",
                self.address,
                bytes.len()
            );
        }
        Ok(())
    }

    /// Runs a command in the folder.
    pub fn run(&self, command: &str) -> anyhow::Result<Finished> {
        let script = format!(
            "cd {} && {{ {command} & echo $! >pid; wait $!; }}; e=$?; rm -f pid; exit $e",
            self.folder
        );
        self.finish(self.way.command(&script), &[])
    }

    /// Starts a command, gives it its input, and waits for its end.
    fn finish(&self, mut command: Command, input: &[u8]) -> anyhow::Result<Finished> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| {
                format!("{}: {} cannot be started", self.address, self.way.program())
            })?;
        let mut stdin = child.stdin.take().expect("it is a pipe");
        let input = input.to_vec();
        // A reader that has gone tells why in its own words.
        std::thread::spawn(move || drop(stdin.write_all(&input)));
        let stdout = heard(child.stdout.take().expect("it is a pipe"));
        let stderr = heard(child.stderr.take().expect("it is a pipe"));
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if began.elapsed() > self.timeout {
                let _ = child.kill();
                let _ = child.wait();
                bail!(
                    "{}: was not done after {} seconds; nothing is left there. --timeout gives it \
                     longer",
                    self.address,
                    self.timeout.as_secs()
                );
            }
            std::thread::sleep(PAUSE);
        };
        // A background process of the command may keep the pipe open after it exits.
        let [stdout, stderr] =
            [stdout, stderr].map(|said| said.recv_timeout(LAST_OUTPUT).unwrap_or_default());
        if stdout.is_cut {
            bail!(
                "{}: the runner printed more than {MAX_OUTPUT} bytes; is it a Hardtack runner?",
                self.address
            );
        }
        Ok(Finished { status, stdout: stdout.text, stderr: stderr.text })
    }
}

/// One output stream of a command.
#[derive(Default)]
struct Said {
    text: String,
    /// Whether the stream was longer than [`MAX_OUTPUT`].
    is_cut: bool,
}

/// Reads a stream in the background, up to [`MAX_OUTPUT`] bytes, and then closes it.
fn heard(stream: impl Read + Send + 'static) -> Receiver<Said> {
    let (sender, receiver) = sync_channel(1);
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.take(MAX_OUTPUT + 1).read_to_end(&mut bytes);
        let is_cut = bytes.len() as u64 > MAX_OUTPUT;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let _ = sender.send(Said { text, is_cut });
    });
    receiver
}

/// Reads the first two lines of a stream in the background and sends each as it arrives. Stops at a
/// line longer than [`MAX_LINE`].
fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    const LINES: usize = 2;
    let (sender, receiver) = sync_channel(LINES);
    std::thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        for _ in 0..LINES {
            let mut line = Vec::new();
            let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
            if read.is_err() || line.pop() != Some(b'\n') {
                return;
            }
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            if sender.send(line).is_err() {
                return;
            }
        }
        // Drain the rest, so that the sender does not fail with a broken pipe.
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
    });
    receiver
}

impl Drop for Remote {
    fn drop(&mut self) {
        // The other side hears that nobody is there any more, and removes its folder.
        drop(self.lease.stdin.take());
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(5) {
            if !matches!(self.lease.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        let _ = self.lease.kill();
        let _ = self.lease.wait();
    }
}

impl Way {
    fn program(&self) -> &str {
        match self {
            Way::Ssh { command, .. } => &command[0],
            Way::Adb { .. } => "adb",
        }
    }

    /// What runs a script there.
    fn command(&self, script: &str) -> Command {
        let script = format!("exec sh -c '{script}'");
        match self {
            Way::Ssh { command, host } => {
                let mut run = Command::new(&command[0]);
                run.args(&command[1..]).arg(host).arg("--").arg(script);
                run
            }
            Way::Adb { serial } => {
                let mut run = Command::new("adb");
                if let Some(serial) = serial {
                    run.args(["-s", serial]);
                }
                run.args(["shell", "-T"]).arg(script);
                run
            }
        }
    }
}

impl Finished {
    /// The answer to a question: yes or no.
    ///
    /// # Errors
    /// Where there was none, with what the other side said.
    pub fn answer(&self, what: &str, address: &str) -> anyhow::Result<bool> {
        let said = last_line(&self.stderr);
        // A shell tells of a signal by 128 and its number.
        match self.status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            Some(126 | 127) => bail!(
                "{address}: {what} cannot be executed there: {said}; is the file of --runner built \
                 for that processor, and static?"
            ),
            Some(137) => {
                bail!("{address}: {what} was killed, which systems do when memory is short: {said}")
            }
            Some(code @ 129..=192) => {
                bail!("{address}: {what} ended by signal {}: {said}", code - 128)
            }
            Some(255) => bail!("{address}: the connection was lost: {said}"),
            Some(code) => bail!("{address}: {what} failed ({code}): {said}"),
            None => bail!("{address}: the connection was cut: {said}"),
        }
    }
}

/// The last line of what was said; others are greetings.
fn last_line(said: &str) -> String {
    let line = said.lines().map(str::trim).rfind(|line| !line.is_empty());
    line.unwrap_or("it said nothing").to_owned()
}
