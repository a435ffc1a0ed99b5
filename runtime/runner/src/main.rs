//! Checks integer bundles on the device that it runs on: their digests, and that every
//! instruction set of the processor gives the bytes of their golden vectors. Or measures them.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Instant;

use hardtack::measure::Subject;
use hardtack::{Bundle, Error, Isa, Options, Session, golden};

const USAGE: &str = "\
Checks that this machine gives the bytes of the golden vectors in integer bundles, or measures
how fast it runs them.

usage: hardtack-runner [--bench] [--runs N] [--isa NAME]... [--threads N] BUNDLE...

  --bench      measure instead, with the best instruction set; one line of JSON a bundle
  --runs N     measure so many runs, and not for two seconds
  --isa NAME   only with this instruction set, which must be there; again for another
  --threads N  with so many threads (1)";

/// What the command line asks for.
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
            || arguments.next().ok_or_else(|| format!("{argument} needs a value\n\n{USAGE}"));
        match argument.as_str() {
            "--isa" => {
                let name = value()?;
                request.isas.push(Isa::from_name(&name).ok_or_else(|| {
                    let known: Vec<&str> = Isa::ALL.iter().map(|isa| isa.name()).collect();
                    format!("{name} is no instruction set; there are {}", known.join(", "))
                })?);
            }
            "--bench" => request.bench = true,
            "--runs" => request.runs = Some(number(&value()?)?),
            "--threads" => request.threads = number(&value()?)?,
            "--help" | "-h" => return Err(USAGE.into()),
            _ if argument.starts_with('-') => {
                return Err(format!("{argument} is no option\n\n{USAGE}"));
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

/// A number from 1 on.
fn number(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|&number| number > 0);
    number.ok_or_else(|| format!("{text} is no number from 1 on"))
}

/// Opens a bundle: maps it, but where files cannot be mapped.
fn open(path: &str) -> Result<Bundle, Error> {
    if cfg!(target_family = "wasm") { Bundle::read(path) } else { Bundle::open(path) }
}

/// Measures one bundle, once for each instruction set; lines of JSON.
fn bench(path: &str, request: &Request) -> Result<String, Error> {
    let mut lines = Vec::new();
    for &isa in &request.isas {
        let began = Instant::now();
        let bundle = open(path)?;
        let options = Options { isa: Some(isa), threads: request.threads, ..Options::default() };
        let measured = Subject::new(&bundle, options, began)?.measure(request.runs)?;
        lines.push(measured.json());
    }
    Ok(lines.join("\n"))
}

/// Checks one bundle; a line about it, and whether all is well.
fn check(path: &str, isas: &[Isa], threads: usize) -> Result<(String, bool), Error> {
    let bundle = open(path)?;
    bundle.verify()?;
    let (mut line, mut holds) = (format!("{path}:"), true);
    for &isa in isas {
        let options = Options { isa: Some(isa), threads, ..Options::default() };
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

fn main() -> ExitCode {
    let request = match request(std::env::args().skip(1)) {
        Ok(request) => request,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    let mut code = ExitCode::SUCCESS;
    for path in &request.bundles {
        let answer = match request.bench {
            true => bench(path, &request).map(|lines| (lines, true)),
            false => check(path, &request.isas, request.threads),
        };
        match answer {
            Ok((line, holds)) => {
                println!("{line}");
                if !holds {
                    code = ExitCode::FAILURE;
                }
            }
            Err(error) => {
                let text = error.to_string();
                let place = if text.starts_with(path) { "" } else { &format!("{path}: ") };
                eprintln!("{place}{text}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
