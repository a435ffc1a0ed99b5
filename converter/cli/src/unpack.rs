//! `hardtack unpack`.

use anyhow::{Context as _, anyhow};
use hardtack_converter::write_file;
use serde_json::json;

use crate::Answer;
use crate::arguments::Unpack;
use crate::output::{self, bytes, print};

pub fn unpack(arguments: &Unpack, as_json: bool) -> anyhow::Result<Answer> {
    let path = &arguments.file;
    let packed =
        std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let mut bundle = Vec::new();
    let summary = match hardtack_transport::unpack(&packed[..], &mut bundle) {
        Ok(summary) => summary,
        Err(error) => {
            let error = anyhow!("{}: {error}", path.display());
            if as_json {
                output::json(&json!({ "unpacked": false, "problem": output::sentence(&error) }));
            }
            output::error(&error);
            return Ok(Answer::No);
        }
    };
    write_file(&arguments.output, &bundle)?;
    let digest = summary.root.to_string();
    if as_json {
        let length = summary.length;
        output::json(&json!({ "unpacked": true, "bundle_bytes": length, "digest": digest }));
    } else {
        let file = arguments.output.display();
        print(&format!("{file}: {}, root digest {digest}", bytes(summary.length)));
    }
    Ok(Answer::Yes)
}
