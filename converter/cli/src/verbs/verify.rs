//! `hardtack verify`.

use hardtack::{Bundle, golden};
use serde_json::json;

use crate::arguments::Verify;
use crate::output::Answer;
use crate::output::{self, print, table};
use crate::support::bundles::{self, Refusal};

pub fn verify(arguments: &Verify, as_json: bool) -> anyhow::Result<Answer> {
    let path = &arguments.bundle;
    let refuse = |error: &anyhow::Error| {
        if as_json {
            output::json(&json!({ "holds": false, "problem": output::sentence(error) }));
        }
        output::error(error);
        Ok(Answer::No)
    };
    let bundle = match bundles::open_or_refuse(path) {
        Ok(bundle) => bundle,
        Err(Refusal::File(error)) => return Err(error),
        Err(Refusal::Bundle(error)) => return refuse(&error),
    };
    if let Err(error) = bundle.verify() {
        return refuse(&anyhow::Error::new(error).context(path.display().to_string()));
    }
    match vectors(&bundle, arguments) {
        Ok(report) => answer(&bundle, &report, as_json),
        Err(error) => refuse(&error.context(path.display().to_string())),
    }
}

/// Runs the test vectors of a bundle.
fn vectors(bundle: &Bundle, arguments: &Verify) -> anyhow::Result<golden::Report> {
    let mut session =
        bundles::session(bundle, &arguments.bundle, false, arguments.limits.limits())?;
    Ok(golden::check(bundle, &mut session)?)
}

/// Prints the result.
fn answer(bundle: &Bundle, report: &golden::Report, as_json: bool) -> anyhow::Result<Answer> {
    let sections = bundle.container()?.sections().count();
    if as_json {
        let outputs: Vec<_> = report
            .outputs
            .iter()
            .map(|output| {
                json!({
                    "name": output.name,
                    "tolerance": output.tolerance,
                    "difference": output.difference,
                    "holds": output.holds,
                })
            })
            .collect();
        output::json(&json!({
            "holds": report.holds(),
            "digest": bundle.root().to_string(),
            "sections": sections,
            "cases": report.cases,
            "outputs": outputs,
        }));
    } else {
        let mut text =
            format!("digests    {sections} sections are intact, root digest {}\n", bundle.root());
        let rows = report.outputs.iter().map(|output| {
            let allowed = match output.tolerance {
                0.0 => "exact".into(),
                tolerance => format!("{tolerance:.2e}"),
            };
            let difference = match output.difference {
                0.0 => "none".into(),
                difference => format!("{difference:.2e}"),
            };
            let verdict = if output.holds { "passed" } else { "FAILED" };
            [output.name.clone(), difference, allowed, verdict.into()]
        });
        text += &format!("vectors    {} run on this machine\n\n", report.cases);
        text += &table(["output", "difference", "allowed", ""], rows);
        print(&text);
    }
    Ok(if report.holds() { Answer::Yes } else { Answer::No })
}
