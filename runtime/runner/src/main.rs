//! Checks integer bundles on a device: verifies their digests, and runs their golden vectors with
//! every instruction set of the processor. It can also benchmark them.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use hardtack::measure::Subject;
use hardtack::{Bundle, Error, Isa, Session, SessionOptions, golden};

const USAGE: &str = "\
Runs the golden vectors of integer bundles on this machine, or benchmarks the bundles.

usage: hardtack-runner [--bench] [--runs N] [--isa NAME]... [--threads N] BUNDLE...

  --bench      benchmark with the best instruction set; prints a line of JSON per bundle
  --runs N     number of measured inferences, such as 100 (default: as many as fit into 2 seconds)
  --isa NAME   use this instruction set, such as scalar; repeatable (default: all that are supported)
  --threads N  number of threads, such as 4 (default: 1)

Exit codes: 0 = success, 1 = negative result (golden vectors differ, or a bundle is refused), 2 = any
other error, such as wrong options or a file that cannot be read.";

/// The command-line arguments.
struct Request {
    isas: Vec<Isa>,
    threads: usize,
    bench: bool,
    runs: Option<usize>,
    bundles: Vec<String>,
}

fn request(mut arguments: impl Iterator<Item = String>) -> Result<Request, String> {
    let mut request =
        Request { isas: Vec::new(), threads: 1, bench: false, runs: None, bundles: Vec::new() };
    while let Some(argument) = arguments.next() {
        let mut value =
            || arguments.next().ok_or_else(|| format!("{argument} requires a value\n\n{USAGE}"));
        match argument.as_str() {
            "--isa" => {
                let name = value()?;
                request.isas.push(Isa::from_name(&name).ok_or_else(|| {
                    let known: Vec<&str> = Isa::ALL.iter().map(|isa| isa.name()).collect();
                    format!("{name} is not an instruction set; use one of {}", known.join(", "))
                })?);
            }
            "--bench" => request.bench = true,
            "--runs" => request.runs = Some(number(&value()?)?),
            "--threads" => request.threads = number(&value()?)?,
            "--help" | "-h" => return Err(USAGE.into()),
            _ if argument.starts_with('-') => {
                return Err(format!("{argument} is not an option\n\n{USAGE}"));
            }
            _ => request.bundles.push(argument),
        }
    }
    if request.bundles.is_empty() {
        return Err(USAGE.into());
    }
    if request.isas.is_empty() && request.bench {
        request.isas = vec![Isa::detect()];
    } else if request.isas.is_empty() {
        request.isas = Isa::ALL.iter().copied().filter(|isa| isa.is_supported()).collect();
    }
    Ok(request)
}

/// Parses a positive integer.
fn number(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|&number| number > 0);
    number.ok_or_else(|| format!("{text} is not a positive integer"))
}

/// Opens a bundle. Maps the file, except on WebAssembly, which cannot map files.
fn open(path: &str) -> Result<Bundle, Error> {
    if cfg!(target_family = "wasm") { Bundle::read(path) } else { Bundle::open(path) }
}

/// Benchmarks a bundle with each instruction set. Returns a line of JSON for each.
fn bench(path: &str, request: &Request) -> Result<String, Error> {
    let mut lines = Vec::new();
    for &isa in &request.isas {
        let began = Instant::now();
        let bundle = open(path)?;
        let options = SessionOptions {
            isa: Some(isa),
            threads: request.threads,
            ..SessionOptions::default()
        };
        let measured = Subject::new(&bundle, options, began)?.measure(request.runs)?;
        lines.push(measured.json());
    }
    Ok(lines.join("\n"))
}

/// Checks a bundle. Returns a line for the user, and whether all results match.
fn check(path: &str, isas: &[Isa], threads: usize) -> Result<(String, bool), Error> {
    let bundle = open(path)?;
    bundle.verify()?;
    let (mut line, mut holds) = (format!("{path}:"), true);
    for &isa in isas {
        let options = SessionOptions { isa: Some(isa), threads, ..SessionOptions::default() };
        let mut session = Session::with_options(&bundle, options)?;
        let report = golden::check(&bundle, &mut session)?;
        holds &= report.cases > 0 && report.holds();
        let verdict = match report.cases {
            0 => "no golden vectors",
            _ if report.holds() => "equal",
            _ => "DIFFERENT",
        };
        // Writing into a string cannot fail.
        let _ = write!(line, " {isa} {verdict}");
    }
    Ok((line, holds))
}

/// Returns whether a file cannot be read, as opposed to a bundle that is refused.
fn is_unreadable(error: &Error) -> bool {
    match error {
        Error::Read(_) => true,
        Error::File { error, .. } => is_unreadable(error),
        _ => false,
    }
}

fn main() -> ExitCode {
    let request = match request(std::env::args().skip(1)) {
        Ok(request) => request,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let mut code = 0;
    for path in &request.bundles {
        let answer = match request.bench {
            true => bench(path, &request).map(|lines| (lines, true)),
            false => check(path, &request.isas, request.threads),
        };
        match answer {
            Ok((line, holds)) => {
                println!("{line}");
                if !holds {
                    code = code.max(1);
                }
            }
            Err(error) => {
                let text = error.to_string();
                let place = if text.starts_with(path) { "" } else { &format!("{path}: ") };
                eprintln!("{place}{text}");
                code = code.max(if is_unreadable(&error) { 2 } else { 1 });
            }
        }
    }
    ExitCode::from(code)
}
