//! The accuracy section of the report: the bundle compared with the float model.

use std::collections::BTreeMap;

use crate::output::escaped;
use crate::support::compare::{Answers, Change, Changed, Comparison};

/// The maximum number of classes for a confusion matrix; with more, the cells are listed.
const WIDE: usize = 12;

/// Returns the accuracy of both models and the samples whose prediction changed.
pub fn section(comparison: &Comparison) -> String {
    let data = escaped(&comparison.data);
    let samples = comparison.samples;
    let (float, bundle, changed) = match &comparison.answers {
        Answers::Values { float, bundle } => {
            return format!(
                "<p>Mean squared error on the {samples} samples of <b>{data}</b>: float {float:.6}, \
                 bundle {bundle:.6}.</p>\n"
            );
        }
        Answers::Classes { float, bundle, changed } => (float, bundle, changed),
    };
    let bar = |name: &str, class: &str, top1: f64, right: usize| {
        format!(
            "<div class=\"meter\"><span>{name}</span><span class=\"bar\"><i class=\"{class}\" \
             style=\"width:{:.2}%\"></i></span><b>{:.2} %</b><small>{right} of {samples}</small>\
             </div>\n",
            100.0 * top1,
            100.0 * top1
        )
    };
    let mut html = format!("<p>Top-1 accuracy on the {samples} samples of <b>{data}</b>.</p>\n");
    html += &bar("float", "other", float.top1, float.right);
    html += &bar("bundle", "main", bundle.top1, bundle.right);
    html += &format!(
        "<p><b>{}</b> predictions changed: <b>{}</b> gained, <b>{}</b> lost, <b>{}</b> from wrong to \
         wrong.</p>\n",
        changed.len(),
        comparison.count(Change::Gained),
        comparison.count(Change::Lost),
        comparison.count(Change::Other)
    );
    if !changed.is_empty() {
        html += &confusions(changed);
        html += &samples_of(changed);
    }
    html
}

/// Returns the table of the changed samples.
fn samples_of(changed: &[Changed]) -> String {
    let mut html = String::from(
        "<details open=\"\"><summary>Samples whose prediction changed</summary>\n<div \
         class=\"wide\"><table class=\"words cards\"><tr><th>sample</th><th>change</th><th>label</th><th>float</th><th>bundle</th></tr>\n",
    );
    for Changed { sample, change, truth, float, bundle } in changed {
        let change = change.name();
        let [sample, truth, float, bundle] =
            [sample.clone(), truth.to_string(), float.to_string(), bundle.to_string()]
                .map(|text| escaped(&text));
        html += &format!(
            "<tr><td class=\"name\">{sample}</td><td class=\"{change}\">{change}</td>\
             <td data-of=\"label\">{truth}</td><td \
             data-of=\"float\">{float}</td><td data-of=\"bundle\">{bundle}</td></tr>\n"
        );
    }
    html + "</table></div></details>\n"
}

/// Returns the difference between the confusion matrices of the bundle and the float model.
fn confusions(changed: &[Changed]) -> String {
    let mut classes = BTreeMap::new();
    let mut cells: BTreeMap<(usize, usize), i64> = BTreeMap::new();
    for Changed { truth, float, bundle, .. } in changed {
        for class in [truth, float, bundle] {
            classes.insert(class.index, escaped(&class.to_string()));
        }
        *cells.entry((truth.index, float.index)).or_default() -= 1;
        *cells.entry((truth.index, bundle.index)).or_default() += 1;
    }
    cells.retain(|_, count| *count != 0);
    let few = classes.len() <= WIDE;
    let open = format!(
        "<details{}><summary>Confusion matrix: difference from float</summary>\n\
         <div class=\"wide\"><table class=\"{}\">",
        if few { " open=\"\"" } else { "" },
        if few { "confusions" } else { "words" }
    );
    let class = |right: bool, count: i64| match (right, count > 0) {
        (true, true) | (false, false) => "gained",
        _ => "lost",
    };
    if few {
        let mut html = format!("{open}<tr><th>label ↓ prediction →</th>");
        for name in classes.values() {
            html += &format!("<th class=\"up\"><span>{name}</span></th>");
        }
        html += "</tr>\n";
        for (truth, name) in &classes {
            html += &format!("<tr><th>{name}</th>");
            for answer in classes.keys() {
                let kind = if truth == answer { " right" } else { "" };
                html += &match cells.get(&(*truth, *answer)) {
                    Some(count) => {
                        let class = class(truth == answer, *count);
                        format!("<td class=\"{class}{kind}\">{count:+}</td>")
                    }
                    None => format!("<td class=\"{kind}\"></td>"),
                };
            }
            html += "</tr>\n";
        }
        return html + "</table></div></details>\n";
    }
    let mut cells: Vec<_> = cells.into_iter().collect();
    cells.sort_by_key(|(cell, count)| (-count.abs(), *cell));
    let mut html = format!("{open}<tr><th>label</th><th>prediction</th><th>change</th></tr>\n");
    for ((truth, answer), count) in cells {
        let class = class(truth == answer, count);
        let (truth, answer) = (&classes[&truth], &classes[&answer]);
        html += &format!(
            "<tr><td>{truth}</td><td>{answer}</td><td class=\"{class}\">{count:+}</td></tr>\n"
        );
    }
    html + "</table></div></details>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::support::compare::{Class, Right};

    #[test]
    fn confusions_count_the_changed_samples() {
        let class = |index: usize| Class { index, label: Some(format!("<{index}>")) };
        let changed = |truth, float, bundle, change| Changed {
            sample: "s".into(),
            change,
            truth: class(truth),
            float: class(float),
            bundle: class(bundle),
        };
        let changed = vec![
            changed(0, 0, 1, Change::Lost),
            changed(0, 0, 1, Change::Lost),
            changed(1, 2, 1, Change::Gained),
        ];
        let right = Right { right: 0, top1: 0.0 };
        let answers = Answers::Classes { float: right, bundle: right, changed };
        let html = section(&Comparison { data: "d".into(), samples: 3, answers });
        for cell in ["<td class=\"lost right\">-2</td>", "<td class=\"lost\">+2</td>", "&lt;2&gt;"]
        {
            assert!(html.contains(cell), "{cell}: {html}");
        }
        assert!(
            html.contains("<b>3</b> predictions changed: <b>1</b> gained, <b>2</b> lost"),
            "{html}"
        );
    }
}
