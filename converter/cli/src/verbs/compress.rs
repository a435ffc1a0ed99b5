//! `hardtack compress`.

use anyhow::Context as _;
use serde_json::json;

use crate::arguments::Compress;
use crate::output::Answer;
use crate::output::{self, bytes, file, plain};
use crate::support::bundles::{self, Refusal};

pub fn compress(arguments: &Compress, as_json: bool) -> anyhow::Result<Answer> {
    let (path, place) = (&arguments.bundle, arguments.output.as_path());
    file::check(&[place], &[path], as_json)?;
    let refuse = |error: &anyhow::Error| {
        if as_json {
            output::json(&json!({ "packed": false, "problem": output::sentence(error) }));
        }
        output::error(error);
        Ok(Answer::No)
    };
    match bundles::open_or_refuse(path) {
        Ok(_) => {}
        Err(Refusal::File(error)) => return Err(error),
        Err(Refusal::Bundle(error)) => return refuse(&error),
    }
    let bundle =
        std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let packed = match hardtack_transport::pack(&bundle) {
        Ok(packed) => packed,
        Err(error) => {
            return refuse(&anyhow::Error::new(error).context(path.display().to_string()));
        }
    };
    file::write(place, &packed)?;
    let (from, to) = (bundle.len() as u64, packed.len() as u64);
    if as_json {
        output::json(&json!({ "packed": true, "bundle_bytes": from, "transport_bytes": to }));
    } else {
        let part = 100.0 * to as f64 / from as f64;
        let name = place.display().to_string();
        let name = plain(&name);
        let text = format!("{name}: {} ({part:.1} % of the bundle's {})", bytes(to), bytes(from));
        file::summary(&[place], &text);
    }
    Ok(Answer::Yes)
}
