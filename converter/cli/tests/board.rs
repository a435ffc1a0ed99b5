//! Tests `hardtack bench --board` with a local shell instead of a remote machine: what is copied,
//! run and reported, and that nothing is left behind.
#![cfg(unix)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const ANSWER: &str = r#"{"latency_ms": {"p50": 2.5, "p90": 3.0, "p99": 3.5, "min": 2.4}, "noise": 0.01, "runs": 100, "load_ms": 1.0, "first_result_ms": 4.0, "peak_rss_bytes": 5000000, "arena_bytes": 16000, "isa": "neon", "threads": 1, "weights": "in place", "integer": true, "machine": {"model": "a board"}}"#;

/// A folder for the files of a test and the temporary files of the board.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Place {
        let place = Place(tempfile::tempdir().unwrap());
        std::fs::create_dir(place.path("there")).unwrap();
        // Like ssh: the last argument is a command for the shell of the board.
        let script = format!(
            "#!/bin/sh\nfor command; do :; done\nexport TMPDIR={}\nexec sh -c \"$command\"\n",
            place.path("there").display()
        );
        place.script("ssh", &script);
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// Writes a runner that executes `check` for a check and `measure` for a measurement.
    fn runner(&self, check: &str, measure: &str) -> PathBuf {
        let text = format!(
            "#!/bin/sh\n[ -s model.tack ] || exit 9\ncase $1 in --bench) {measure};; *) {check};; esac\n"
        );
        self.script("runner", &text)
    }

    fn command(&self, runner: &Path, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hardtack"));
        let bundle = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/frozen/programs/kws_dscnn_i8.tack");
        command.arg("bench").arg(bundle).args(["--board", "pi@board", "--ssh"]);
        command.arg(self.path("ssh")).arg("--runner").arg(runner).args(more);
        command
    }

    fn bench(&self, runner: &Path, more: &[&str]) -> (Option<i32>, String, String) {
        let Output { status, stdout, stderr } = self.command(runner, more).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        self.is_clean();
        (status.code(), text(stdout), text(stderr))
    }

    /// Checks that nothing is left on the board.
    fn is_clean(&self) {
        let began = Instant::now();
        while std::fs::read_dir(self.path("there")).unwrap().count() > 0 {
            assert!(began.elapsed() < Duration::from_secs(10), "something is left behind");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn measures() -> String {
    format!("echo '{ANSWER}'")
}

#[test]
fn a_board_checks_then_measures() {
    let place = Place::new();
    let runner = place.runner("echo model.tack: neon equal", &measures());
    let base = place.path("base.json");
    let base = base.to_str().unwrap();
    let (code, stdout, stderr) = place.bench(&runner, &["--save", base]);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("2.500 ms median") && stdout.contains("vectors    equal"), "{stdout}");
    // Compare the measurement with itself, then a slower one.
    let (code, _, stderr) = place.bench(&runner, &["--baseline", base, "--json"]);
    assert_eq!(code, Some(0), "{stderr}");
    let slower = place.runner("echo equal", &measures().replace("\"p50\": 2.5", "\"p50\": 2.8"));
    let (xml, md) = (place.path("r.xml"), place.path("r.md"));
    let reports = ["--junit", xml.to_str().unwrap(), "--markdown", md.to_str().unwrap()];
    let (code, _, stderr) = place.bench(&slower, &[&["--baseline", base], &reports[..]].concat());
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("2.800 ms is 12.0 % slower than the baseline of 2.500 ms"), "{stderr}");
    assert!(std::fs::read_to_string(xml).unwrap().contains("failures=\"1\""));
    assert!(std::fs::read_to_string(md).unwrap().contains("❌ 2.800 ms"));
    // The baseline must be from the same machine.
    let other = place.runner("echo equal", &measures().replace("a board", "another"));
    let (code, _, stderr) = place.bench(&other, &["--baseline", base]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("another machine (\"a board\", and now \"another\")"), "{stderr}");
}

#[test]
fn wrong_results_have_exit_code_1() {
    let place = Place::new();
    let runner = place.runner("echo model.tack: neon DIFFERENT; exit 1", &measures());
    let (code, _, stderr) = place.bench(&runner, &[]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("the test vectors failed on the board"), "{stderr}");
}

#[test]
fn failures_on_the_board_are_reported() {
    let place = Place::new();
    for (check, measure, expected) in [
        ("kill -9 $$", "true", "the check was killed, probably because memory ran out"),
        ("kill -11 $$", "true", "the check ended with signal 11"),
        (
            "true",
            "echo out of flour >&2; exit 2",
            "the measurement failed with exit code 2: out of flour",
        ),
        ("true", "echo nonsense", "is not a runner of this release"),
        ("exit 127", "true", "the check cannot be executed on the board"),
    ] {
        let runner = place.runner(check, measure);
        let (code, _, stderr) = place.bench(&runner, &[]);
        assert_eq!(code, Some(2), "{stderr}");
        assert!(stderr.contains(expected), "{expected}: {stderr}");
    }
    let runner = place.runner("true", "sleep 60");
    let (code, _, stderr) = place.bench(&runner, &["--timeout", "1"]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("did not finish within 1 seconds"), "{stderr}");
    // The board cannot be reached, or its disk is full.
    place.script("ssh", "#!/bin/sh\necho Welcome >&2; echo no route to host >&2; exit 255\n");
    let (code, _, stderr) = place.bench(&runner, &[]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("pi@board: cannot be reached: no route to host"), "{stderr}");
    let full = format!(
        "#!/bin/sh\nfor command; do :; done\nexport TMPDIR={}\nulimit -f 0\nexec sh -c \"$command\"\n",
        place.path("there").display()
    );
    place.script("ssh", &full);
    let (code, _, stderr) = place.bench(&runner, &[]);
    assert_eq!(code, Some(2));
    assert!(stderr.contains("cannot write hardtack-runner"), "{stderr}");
}

#[test]
fn a_killed_command_leaves_nothing_behind() {
    let place = Place::new();
    let runner = place.runner("sleep 60", "true");
    let mut command = place.command(&runner, &[]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    let copied = || {
        let folders = std::fs::read_dir(place.path("there")).unwrap().filter_map(Result::ok);
        folders.into_iter().any(|folder| folder.path().join("model.tack").exists())
    };
    while !copied() {
        assert!(began.elapsed() < Duration::from_secs(30), "nothing was copied");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    place.is_clean();
}

#[test]
fn timeout_covers_connecting() {
    let place = Place::new();
    let runner = place.runner("true", "true");
    for (script, expected) in [
        ("exec sleep 60", "pi@board: no answer within 1 seconds; use --timeout"),
        ("echo aarch64; exec sleep 60", "pi@board: no answer within 1 seconds"),
        // A background process keeps the pipes open.
        ("echo no route >&2; sleep 60 & exit 255", "pi@board: no answer within 1 seconds"),
    ] {
        place.script("ssh", &format!("#!/bin/sh\n{script}\n"));
        let began = Instant::now();
        let (code, _, stderr) = place.bench(&runner, &["--timeout", "1"]);
        assert_eq!(code, Some(2));
        assert!(stderr.contains(expected), "{expected}: {stderr}");
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    }
    let (code, _, stderr) = place.bench(&runner, &["--timeout", "0"]);
    assert!(code == Some(2) && stderr.contains("0 is not in 1.."), "{stderr}");
}

#[test]
fn endless_output_of_a_board_is_refused() {
    let place = Place::new();
    for (check, measure) in [("yes", "true"), ("true", "yes"), ("yes >&2", "yes >&2")] {
        let runner = place.runner(check, measure);
        let (code, stdout, stderr) = place.bench(&runner, &["--timeout", "20"]);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "{stderr}");
        assert!(stderr.len() < 5000, "{}", stderr.len());
    }
    let runner = place.runner("true", "yes");
    let (_, _, stderr) = place.bench(&runner, &["--timeout", "20"]);
    assert!(stderr.contains("printed more than 1048576 bytes"), "{stderr}");
    // The first line never ends.
    place.script("ssh", "#!/bin/sh\nexec head -c 100000000 /dev/zero\n");
    let (code, _, stderr) = place.bench(&runner, &["--timeout", "20"]);
    assert!(code == Some(2) && stderr.contains("cannot be reached"), "{stderr}");
}

#[test]
fn control_characters_from_a_board_are_escaped() {
    let place = Place::new();
    let answer = ANSWER.replace("a board", r"a \u001b[2J\nVERIFIED").replace("neon", r"\u009b31m");
    let runner = place.runner("printf '\\033[2Jequal'", &format!("printf '%s' '{}'", answer));
    let files = ["m.md", "j.xml"].map(|name| place.path(name));
    let [md, xml] = files.each_ref().map(|path| path.to_str().unwrap());
    let (code, stdout, stderr) = place.bench(&runner, &["--markdown", md, "--junit", xml]);
    assert_eq!(code, Some(0), "{stderr}");
    let texts = files.map(|path| std::fs::read_to_string(path).unwrap());
    for text in [&stdout, &stderr].into_iter().chain(&texts) {
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        assert!(!text.lines().any(|line| line.starts_with("VERIFIED")), "{text}");
    }
    assert!(stdout.contains(r"a \u{1b}[2J\nVERIFIED"), "{stdout}");
}

#[test]
fn an_address_cannot_inject_ssh_options() {
    let place = Place::new();
    let runner = place.runner("true", "true");
    let touched = place.path("touched");
    for address in ["-oProxyCommand=touch%20x", "-F/tmp/x", "-"] {
        let bundle = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/frozen/programs/kws_dscnn_i8.tack");
        let mut command = Command::new(env!("CARGO_BIN_EXE_hardtack"));
        command.arg("bench").arg(bundle).arg(format!("--board={address}")).arg("--ssh");
        command.arg(place.script("ssh", &format!("#!/bin/sh\ntouch {}\n", touched.display())));
        let output = command.arg("--runner").arg(&runner).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr.contains("expected user@host, adb or adb:SERIAL"), "{stderr}");
    }
    assert!(!touched.exists());
}
