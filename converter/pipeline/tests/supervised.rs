//! Tests supervision from the supervisor's side. The program starts itself again with the name of a
//! case, and that process supervises the same program misbehaving. It needs no test harness,
//! because a supervised program must control the start of its `main`.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use hardtack_converter::Progress as _;
use hardtack_converter::guard::{self, Cause, Ended, Event, Limits, Reporter, Supervision};

/// The prefix of the argument that names a case.
const CASE: &str = "case=";
const MEMORY: u64 = 1 << 30;

fn main() -> ExitCode {
    guard::child_main_if_requested();
    let case = std::env::args().nth(1);
    match case.as_deref().and_then(|argument| argument.strip_prefix(CASE)) {
        Some(case) => supervise(case),
        // Limits and signals exist only on Unix.
        None if cfg!(unix) => test(),
        None => {}
    }
    ExitCode::SUCCESS
}

/// Supervises this program in a case, and prints the outcome and the events.
fn supervise(case: &str) {
    let seconds = if case == "hang" { 1 } else { 60 };
    let limits = Limits { memory_bytes: MEMORY, seconds };
    let outputs = vec![std::env::temp_dir().join("model.tack")];
    let mut events = Vec::new();
    let mut listen = |event: Event<'_>| {
        events.push(match event {
            Event::Text(text) => String::from_utf8_lossy(text).into_owned(),
            event => format!("{event:?}"),
        });
    };
    let ended = guard::supervised(&Supervision { limits, outputs }, &mut listen, || work(case));
    println!("{:?}\n{}", ended.unwrap(), events.concat());
}

/// The work of the supervised process.
fn work(case: &str) -> u8 {
    Reporter::default().stage("fold");
    leave_files();
    match case {
        "done" => eprintln!("words"),
        "code" => return 7,
        "panic" => panic!("no such {}", "axis"),
        "abort" => std::process::abort(),
        "memory" => return std::hint::black_box(vec![1u8; 8 << 30]).len() as u8,
        "stack" => return deep(0),
        "hang" | "wait" => loop {
            std::thread::sleep(Duration::from_millis(5));
        },
        "terminated" => {
            let id = std::process::id().to_string();
            Command::new("kill").arg("-TERM").arg(id).status().unwrap();
            std::thread::sleep(Duration::from_secs(60));
        }
        // Writes a message of an aborting process, but continues.
        "alive" => eprintln!("memory allocation of 9 bytes failed\nand more"),
        "terminal" => print!("{}", guard::stderr_is_terminal()),
        other => panic!("no case {other}"),
    }
    0
}

/// Leaves a temporary file, and an unfinished file next to an output.
fn leave_files() {
    std::fs::write(std::env::temp_dir().join("spool"), "x").unwrap();
    let name = format!("{}bundle.tmp", guard::unfinished_prefix());
    std::fs::write(guard::temporary_folder().join(name), "x").unwrap();
}

fn deep(level: u64) -> u8 {
    let here = std::hint::black_box([level; 64]);
    if level == u64::MAX { 0 } else { deep(level + 1).wrapping_add(here[7] as u8) }
}

/// Returns a command that runs a case with this folder for temporary files.
fn start(case: &str, folder: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg(format!("{CASE}{case}")).env("TMPDIR", folder).env("RUST_BACKTRACE", "1");
    command
}

/// Returns the output of a case, and checks that no temporary files remain.
fn outcome(case: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let output = start(case, folder.path()).output().unwrap();
    let (stdout, words) = (String::from_utf8_lossy(&output.stdout), output.stderr);
    assert!(output.status.success() && words.is_empty(), "{case}: {stdout}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{case} leaves files");
    stdout.into_owned()
}

fn test() {
    let stopped = |case: &str, cause: Cause| {
        let expected = Ended::Stopped(guard::Stopped { cause, place: "in stage \"fold\"".into() });
        assert_eq!(outcome(case).lines().next().unwrap(), format!("{expected:?}"), "{case}");
    };
    assert_eq!(outcome("done"), "Code(0)\nStage(\"fold\")Finishedwords\nFinished\n");
    assert!(outcome("code").starts_with("Code(7)\n"));
    assert!(outcome("alive").contains("memory allocation of 9 bytes failed\nand more\n"));
    assert!(outcome("terminal").starts_with("false"));
    stopped("panic", Cause::Panic { message: "no such axis".into() });
    stopped("abort", Cause::Crash { signal: 6 });
    stopped("memory", Cause::Memory { limit_bytes: MEMORY });
    stopped("stack", Cause::Nesting);
    stopped("hang", Cause::Time { seconds: 1 });
    stopped("terminated", Cause::Ended { signal: 15 });
    for signal in ["-TERM", "-INT", "-HUP", "-KILL"] {
        killed(signal);
    }
    no_folder();
    let _ = writeln!(std::io::stdout(), "all supervision cases passed");
}

/// Checks that the children end and the files are removed when a signal ends the supervisor.
fn killed(signal: &str) {
    let folder = tempfile::tempdir().unwrap();
    let mut command = start("wait", folder.path());
    let mut supervisor = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let entries = || std::fs::read_dir(folder.path()).unwrap().count();
    wait_until("the work begins", || entries() == 2);
    let id = supervisor.id().to_string();
    let children = children(&id);
    assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    supervisor.wait().unwrap();
    wait_until("the files are gone", || entries() == 0);
    let gone = |id: &String| !Path::new("/proc").join(id).join("exe").exists();
    wait_until("the children are gone", || children.iter().all(gone));
}

/// Returns the children of a process, if the system lists them.
fn children(id: &str) -> Vec<String> {
    let list = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
    list.unwrap_or_default().split_whitespace().map(String::from).collect()
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what} only after 30 seconds");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Checks that a missing folder for temporary files is an error.
fn no_folder() {
    let output = start("done", Path::new("/nowhere/at/all")).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && words.contains("Temporary"), "{words}");
}
