//! A temporary folder on a remote machine: files are copied to it and commands run in it. It is
//! removed when this process ends.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// The interval at which a running command is polled.
const PAUSE: Duration = Duration::from_millis(20);
/// Time to wait for the remaining output of a command that has exited.
const LAST_OUTPUT: Duration = Duration::from_secs(2);
/// Maximum number of bytes read from each output stream of a command on a board.
const MAX_OUTPUT: u64 = 1 << 20;
/// Maximum length in bytes of each line that a board sends when it connects.
const MAX_LINE: u64 = 4096;
/// Maximum connection timeout that is passed to ssh, in seconds.
const MAX_CONNECT: u64 = 15;

/// The shell script of the lease. It creates the folder, prints the processor and the folder, and
/// waits until the connection closes for any reason. Then it kills the running command and removes
/// the folder. It is passed in single quotes, so it must not contain any.
const LEASE: &str = r#"d=$(mktemp -d "${TMPDIR:-BASE}/hardtack.XXXXXX") || exit 1
trap "[ -f \"$d/pid\" ] && kill -9 \$(cat \"$d/pid\") 2>/dev/null; rm -rf \"$d\"" EXIT
trap "exit 1" HUP INT TERM PIPE
uname -m
echo "$d"
cat >/dev/null"#;

/// How commands are sent to the machine.
#[derive(Clone, Debug)]
enum Way {
    /// The words of `--ssh`, and the host.
    Ssh { command: Vec<String>, host: String },
    /// The Android debug bridge, with the serial number of the device.
    Adb { serial: Option<String> },
}

/// A temporary folder on a remote machine, removed on drop.
pub struct Remote {
    way: Way,
    address: String,
    /// The folder of the control socket, which all ssh connections share.
    _control: tempfile::TempDir,
    /// The process that keeps the folder; see [`LEASE`].
    lease: Child,
    /// The name of the processor, from `uname -m`.
    pub processor: String,
    folder: String,
    timeout: Duration,
}

/// The result of a command.
pub struct Finished {
    status: ExitStatus,
    /// The text that it printed to stdout.
    pub stdout: String,
    stderr: String,
}

impl Remote {
    /// Connects to `address`: `user@host` for ssh, `adb` or `adb:SERIAL`. `ssh` is the ssh command
    /// with its options; `timeout` limits connecting and each command.
    ///
    /// # Errors
    /// If the address is invalid, or if the machine does not answer in time.
    pub fn connect(address: &str, ssh: &str, timeout: Duration) -> anyhow::Result<Remote> {
        let control = tempfile::Builder::new().prefix("hardtack-").tempdir()?;
        let way = match address.split_once(':') {
            Some(("adb", serial)) => Way::Adb { serial: Some(serial.into()) },
            _ if address == "adb" => Way::Adb { serial: None },
            _ => {
                let mut command: Vec<String> = ssh.split_whitespace().map(str::to_owned).collect();
                if command.is_empty() || address.starts_with('-') {
                    bail!("--board {address}: expected user@host, adb or adb:SERIAL");
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
            .with_context(|| format!("{address}: cannot start {}", way.program()))?;
        let answers = lines(lease.stdout.take().expect("it is a pipe"));
        let said = read_in_background(lease.stderr.take().expect("it is a pipe"));
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

    /// Writes a file to the folder.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn put(&self, name: &str, bytes: &[u8], executable: bool) -> anyhow::Result<()> {
        let mode = if executable { "755" } else { "644" };
        let path = format!("{}/{name}", self.folder);
        let script = format!("cat > {path} && chmod {mode} {path}");
        let finished = self.finish(self.way.command(&script), bytes)?;
        if !finished.status.success() {
            let said = last_line(&finished.stderr);
            bail!(
                "{}: cannot write {name} ({} bytes) on the board: {said}; nothing is left behind",
                self.address,
                bytes.len()
            );
        }
        Ok(())
    }

    /// Runs a command in the folder.
    ///
    /// # Errors
    /// If the command does not finish in time or prints too much.
    pub fn run(&self, command: &str) -> anyhow::Result<Finished> {
        let script = format!(
            "cd {} && {{ {command} & echo $! >pid; wait $!; }}; e=$?; rm -f pid; exit $e",
            self.folder
        );
        self.finish(self.way.command(&script), &[])
    }

    /// Starts a local command, writes `input` to its stdin, and waits until it exits.
    fn finish(&self, mut command: Command, input: &[u8]) -> anyhow::Result<Finished> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{}: cannot start {}", self.address, self.way.program()))?;
        let mut stdin = child.stdin.take().expect("it is a pipe");
        let input = input.to_vec();
        // Ignore a closed pipe: the command reports its own error.
        std::thread::spawn(move || drop(stdin.write_all(&input)));
        let stdout = read_in_background(child.stdout.take().expect("it is a pipe"));
        let stderr = read_in_background(child.stderr.take().expect("it is a pipe"));
        let began = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if began.elapsed() > self.timeout {
                let _ = child.kill();
                let _ = child.wait();
                bail!(
                    "{}: the command did not finish within {} seconds; use --timeout to wait \
                     longer. Nothing is left behind",
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
fn read_in_background(stream: impl Read + Send + 'static) -> Receiver<Said> {
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
        // Closing stdin ends the lease script, which removes the folder.
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
    /// Returns the name of the local program.
    fn program(&self) -> &str {
        match self {
            Way::Ssh { command, .. } => &command[0],
            Way::Adb { .. } => "adb",
        }
    }

    /// Returns the local command that runs a shell script on the machine.
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
    /// Returns `true` for exit code 0 and `false` for exit code 1. `what` names the command in
    /// errors.
    ///
    /// # Errors
    /// For all other exit codes, with the last line of stderr.
    pub fn answer(&self, what: &str, address: &str) -> anyhow::Result<bool> {
        let said = last_line(&self.stderr);
        // A shell adds 128 to the number of a signal.
        match self.status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            Some(126 | 127) => bail!(
                "{address}: {what} cannot be executed on the board: {said}; check that --runner is \
                 built for its processor and is static"
            ),
            Some(137) => {
                bail!("{address}: {what} was killed, probably because memory ran out: {said}")
            }
            Some(code @ 129..=192) => {
                bail!("{address}: {what} ended with signal {}: {said}", code - 128)
            }
            Some(255) => bail!("{address}: the connection was lost: {said}"),
            Some(code) => bail!("{address}: {what} failed with exit code {code}: {said}"),
            None => bail!("{address}: the connection was interrupted: {said}"),
        }
    }
}

/// Returns the last line of stderr; the lines before may be greetings of the machine.
fn last_line(said: &str) -> String {
    let line = said.lines().map(str::trim).rfind(|line| !line.is_empty());
    line.unwrap_or("no message").to_owned()
}
