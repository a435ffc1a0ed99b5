//! Tests of `convert --report` and `convert --evaluate`.

mod command;

use std::ffi::OsStr;
use std::path::Path;

use hardtack::Tensor;
use hardtack_converter::arrays::write_npz;
use serde_json::{Value, json};

use command::{Ran, file, hardtack, run};

const MODEL: &str = "examples/data/keyword_spotting/kws_dscnn.onnx";

/// Converts the keyword network to INT8 with a report, and compares it with float on labeled data.
fn convert(model: &Path, output: &Path, data: &Path, page: &Path) -> Ran {
    convert_with(model, output, data, page, &[])
}

fn convert_with(model: &Path, output: &Path, data: &Path, page: &Path, more: &[&str]) -> Ran {
    let calibration = file("examples/data/keyword_spotting/calibration.npz");
    let pre = file("examples/specs/keyword_features.toml");
    let mut arguments: Vec<&OsStr> = vec!["convert".as_ref(), model.as_ref()];
    let paths: [(&str, &Path); 5] = [
        ("-o", output),
        ("--data", &calibration),
        ("--pre", &pre),
        ("--evaluate", data),
        ("--report", page),
    ];
    arguments.extend(paths.iter().flat_map(|(name, path)| [name.as_ref(), path.as_os_str()]));
    arguments.extend(["--int8", "--samples", "8", "--json"].iter().chain(more).map(OsStr::new));
    run(&arguments)
}

/// Checks that all tags of a page are closed in order. Skips the content of `style` and `script`.
fn check_markup(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    let mut rest = page.strip_prefix("<!DOCTYPE html>").expect("a page of HTML");
    while let Some(start) = rest.find('<') {
        assert!(!rest[..start].contains('>'), "a stray >: {}", &rest[..start]);
        rest = &rest[start + 1..];
        let mut quoted = false;
        let end = rest.find(|c| {
            quoted ^= c == '"';
            assert!(quoted || c != '<', "a tag within a tag");
            c == '>' && !quoted
        });
        let tag = &rest[..end.expect("a tag ends")];
        rest = &rest[tag.len() + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name));
        } else if !tag.ends_with('/') {
            let name = tag.split_whitespace().next().unwrap();
            if ["style", "script"].contains(&name) {
                let (_, after) = rest.split_once(&format!("</{name}>")).expect("it ends");
                rest = after;
            } else {
                open.push(name);
            }
        }
    }
    assert!(open.is_empty(), "{open:?} stay open");
}

#[test]
fn a_report_is_one_well_formed_page_with_hostile_names() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // The new names have the length of the old ones, so the file stays valid.
    let (old, new) = (b"StatefulPartitionedCall", b"<script>alert(\"&\")</scr");
    let mut model = std::fs::read(file(MODEL)).unwrap();
    for at in 0..model.len() - old.len() {
        if model[at..].starts_with(old) {
            model[at..at + old.len()].copy_from_slice(new);
        }
    }
    std::fs::write(path("model.onnx"), model).unwrap();
    let labelled = file("examples/data/keyword_spotting/evaluation.npz");
    let ran = convert(&path("model.onnx"), &path("k.tack"), &labelled, &path("page.html"));
    let report = ran.json();
    let page = std::fs::read_to_string(path("page.html")).unwrap();
    check_markup(&page);

    assert!(!page.contains("<script>alert"), "names are escaped");
    let layers = report["layers"].as_array().unwrap();
    assert!(layers.len() >= 10);
    for layer in layers {
        let name = layer["name"].as_str().unwrap();
        let escaped = name.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        let shown = format!("<span class=\"name\">{}</span>", escaped.replace('"', "&quot;"));
        assert!(page.contains(&shown), "{name}");
        let spread = &layer["spread"];
        assert_eq!(spread["counts"].as_array().unwrap().len(), 64);
    }
    assert!(page.contains("&lt;script&gt;alert(&quot;&amp;&quot;)&lt;/scr/"));

    let elsewhere = page.replace("http://www.w3.org/2000/svg", "");
    for word in ["http:", "https:", "//www", "url(", "@import", "src=", "href="] {
        assert!(!elsewhere.contains(word), "the page needs nothing else: {word}");
    }
    let weights = layers.iter().filter(|layer| !layer["weights"].is_null()).count();
    // One plot per layer, one per layer with weights, and one each for sizes, errors and times.
    assert_eq!(page.matches("<svg class=\"plot\"").count(), layers.len() + weights + 3);
    assert_eq!(
        page.matches("<rect class=\"bar\"").count(),
        report["layers"].as_array().unwrap().len() + 1
    );
    for section in ["Accuracy", "Graph", "Layers", "Arena over time", "Conversion"] {
        assert!(page.contains(&format!("<h2>{section}</h2>")), "{section}");
    }
    assert!(page.contains(report["digest"].as_str().unwrap()));
}

#[test]
fn changed_predictions_are_counted_as_in_eval() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let labelled = file("examples/data/keyword_spotting/evaluation.npz");
    let report = convert(&file(MODEL), &path("int8.tack"), &labelled, &path("page.html")).json();
    let pre = file("examples/specs/keyword_features.toml");
    let float = hardtack([&"convert", &file(MODEL), &"-o", &path("float.tack"), &"--pre", &pre]);
    assert_eq!(float.code, 0, "{}{}", float.stdout, float.stderr);
    let (int8, float) = (path("int8.tack"), path("float.tack"));
    let evaluated =
        hardtack([&"eval", &int8, &"--data", &labelled, &"--against", &float, &"--json"]).json();
    let compared = &report["comparison"]["classes"];
    assert_eq!(report["comparison"]["samples"], evaluated["samples"]);
    assert_eq!(report["comparison"]["data"], "evaluation.npz");
    assert_eq!(compared["bundle"]["right"], evaluated["right"]);
    assert_eq!(compared["float"]["right"], evaluated["against"]["right"]);
    let changed = |list: &Value, [here, there]: [&str; 2]| -> Vec<[Value; 3]> {
        let index =
            |value: &Value| if value.is_object() { value["index"].clone() } else { value.clone() };
        let list = list.as_array().unwrap().iter();
        list.map(|one| [one["sample"].clone(), index(&one[here]), index(&one[there])]).collect()
    };
    let list = changed(&compared["changed"], ["bundle", "float"]);
    assert_eq!(list, changed(&evaluated["changed"], ["here", "there"]));
    let count = |change: &str| {
        let all = compared["changed"].as_array().unwrap().iter();
        all.filter(|changed| changed["change"] == change).count() as i64
    };
    let right = |of: &str| compared[of]["right"].as_i64().unwrap();
    assert_eq!(count("gained") - count("lost"), right("bundle") - right("float"));

    // Values are compared by their mean squared errors.
    let x = Tensor::zeros(hardtack::DType::F32, &[3, 49, 10, 1]).unwrap();
    let y = Tensor::new(&[3, 12], vec![0.25f32; 36]).unwrap();
    write_npz(&path("values.npz"), [("x", &x), ("y", &y)]).unwrap();
    let report = convert(&file(MODEL), &int8, &path("values.npz"), &path("page.html")).json();
    let compared = &report["comparison"]["values"];
    let errors = |bundle: &Path| {
        hardtack([&"eval", &bundle, &"--data", &path("values.npz"), &"--json"]).json()["error"]
            .clone()
    };
    assert_eq!(compared, &json!({ "float": errors(&float), "bundle": errors(&int8) }));
    assert!(compared["float"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_frontier_shows_size_and_accuracy_of_fewer_bits() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let data = file("examples/data/keyword_spotting/evaluation.npz");
    let convert = |name: &str, bits: &str| {
        let page = path(&format!("{name}.html"));
        convert_with(&file(MODEL), &path(name), &data, &page, &["--frontier", bits])
    };
    let report = convert("k.tack", "8,2").json();
    let points = report["frontier"].as_array().unwrap();
    let number = |point: usize, name: &str| points[point][name].as_f64().unwrap();
    assert_eq!([number(0, "weight_bits"), number(1, "weight_bits")], [2.0, 8.0]);
    assert!(number(0, "part") < 0.5 * number(1, "part"), "{points:?}");
    let bytes = number(1, "part") * report["source_bytes"].as_f64().unwrap();
    assert!((bytes - number(1, "transport_bytes")).abs() < 1.0);
    let right = |point: &Value| point["classes"]["bundle"]["right"].as_i64().unwrap();
    // The point with 8 bits equals the bundle itself.
    assert_eq!(right(&points[1]), right(&report["comparison"]));
    assert!(right(&points[0]) < right(&points[1]));
    let page = std::fs::read_to_string(path("k.tack.html")).unwrap();
    check_markup(&page);
    assert!(page.contains("<h2>Size and accuracy</h2>"));
    assert_eq!(page.matches(" points</td></tr>").count(), 2);

    let refused = convert("none.tack", "4,9");
    assert_eq!(refused.code, 2);
    assert!(refused.stderr.contains("a number from 1 to 8"), "{}", refused.stderr);
    assert!(!path("none.tack").exists());
}

#[test]
fn labels_that_do_not_fit_leave_no_bundle() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let x = Tensor::zeros(hardtack::DType::F32, &[2, 49, 10, 1]).unwrap();
    let y = |values: &[f32]| Tensor::new(&[values.len()], values.to_vec()).unwrap();
    let wide = Tensor::new(&[2, 5], vec![0.5f32; 10]).unwrap();
    for (arrays, sentence) in [
        (
            vec![("x", &x), ("y", &y(&[3.0, 12.0]))],
            "sample 1: has class 12, but the model has the classes 0 to 11",
        ),
        (vec![("x", &x), ("y", &y(&[1.0]))], "x has 2 samples, but y has 1"),
        (vec![("x", &x)], "has no array \"y\""),
        (vec![("x", &x), ("y", &wide)], "sample 0: y has 5 values, but the output has 12"),
    ] {
        write_npz(&path("data.npz"), arrays).unwrap();
        let ran = convert(&file(MODEL), &path("k.tack"), &path("data.npz"), &path("page.html"));
        assert_eq!(ran.code, 2, "{sentence}: {}", ran.stderr);
        assert!(ran.stderr.contains(sentence), "{sentence}: {}", ran.stderr);
        assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
        assert!(ran.stderr.contains("data.npz"), "{}", ran.stderr);
        assert!(!path("k.tack").exists() && !path("page.html").exists(), "{sentence}");
    }
}
