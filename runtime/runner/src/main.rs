//! Checks integer bundles on the device that it runs on: their digests, and that every
//! instruction set of the processor gives the bytes of their golden vectors.

use std::fmt::Write as _;
use std::process::ExitCode;

use hardtack::{Bundle, Error, Isa, Options, Session, golden};

const USAGE: &str = "\
Checks that this machine gives the bytes of the golden vectors in integer bundles.

usage: hardtack-runner [--isa NAME]... [--threads N] BUNDLE...

  --isa NAME   only with this instruction set, which must be there; again for another
  --threads N  with so many threads (1)";

/// What the command line asks for.
struct Request {
    isas: Vec<Isa>,
    threads: usize,
    bundles: Vec<String>,
}

fn request(mut arguments: impl Iterator<Item = String>) -> Result<Request, String> {
    let mut request = Request { isas: Vec::new(), threads: 1, bundles: Vec::new() };
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
            "--threads" => {
                let number = value()?;
                request.threads = number
                    .parse()
                    .ok()
                    .filter(|&threads| threads > 0)
                    .ok_or_else(|| format!("{number} is no number of threads"))?;
            }
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
    if request.isas.is_empty() {
        request.isas = Isa::ALL.iter().copied().filter(|isa| isa.is_supported()).collect();
    }
    Ok(request)
}

/// Checks one bundle; a line about it, and whether all is well.
fn check(path: &str, isas: &[Isa], threads: usize) -> Result<(String, bool), Error> {
    // WebAssembly cannot map files.
    let open = if cfg!(target_family = "wasm") { Bundle::read } else { Bundle::open };
    let bundle: Bundle = open(path)?;
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
        match check(path, &request.isas, request.threads) {
            Ok((line, holds)) => {
                println!("{line}");
                if !holds {
                    code = ExitCode::FAILURE;
                }
            }
            Err(error) => {
                eprintln!("{error}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}
