//! `hardtack pack`.

use anyhow::Context as _;
use hardtack_converter::write_file;
use serde_json::json;

use crate::Answer;
use crate::arguments::Pack;
use crate::bundles::{self, Refusal};
use crate::output::{self, bytes, print};

pub fn pack(arguments: &Pack, as_json: bool) -> anyhow::Result<Answer> {
    let path = &arguments.bundle;
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
    write_file(&arguments.output, &packed)?;
    let (from, to) = (bundle.len() as u64, packed.len() as u64);
    if as_json {
        output::json(&json!({ "packed": true, "bundle_bytes": from, "transport_bytes": to }));
    } else {
        let part = 100.0 * to as f64 / from as f64;
        let file = arguments.output.display();
        print(&format!("{file}: {} ({part:.1} % of the bundle's {})", bytes(to), bytes(from)));
    }
    Ok(Answer::Yes)
}
