//! The graph section of the report: the graph of the model before and after the conversion.

use std::collections::HashMap;

use hardtack_converter::{GraphNode, Report};

use super::graph::{Shape, draw};
use crate::output::{escaped, plain};
use crate::support::plan::IntegerProgram;

/// The maximum number of characters in the label of a node.
const LABEL: usize = 24;

/// Returns both graphs, the steps of the integer programs, and the nodes that stay in float.
pub fn section(report: &Report, integer_programs: &[IntegerProgram]) -> String {
    let programs = report.graph.iter().filter_map(|node| node.program).max().map_or(0, |p| p + 1);
    let integer = report.graph.iter().filter(|node| node.program.is_some()).count();
    let inputs = report.graph.iter().filter(|node| node.operator == "Input").count();
    let computed = report.graph.len() - inputs;
    let steps: String = (integer_programs.iter().enumerate())
        .map(|(index, program)| {
            let open = if integer_programs.len() == 1 { " open=\"\"" } else { "" };
            let steps = steps(program);
            format!(
                "<details{open}><summary>program {index}: {} steps</summary>\n<div \
                 class=\"scroll\">{}</div></details>\n",
                program.steps().count(),
                draw(&steps, "the steps of an integer program")
            )
        })
        .collect();
    let figure = |title: &str, picture: String, more: &str| {
        format!(
            "<figure><figcaption>{title}</figcaption><div class=\"scroll\">{picture}</div>{more}\
             </figure>\n"
        )
    };
    let picture = draw(&before(report), "the graph of the model; data flows from top to bottom");
    if programs == 0 {
        let title = format!("{computed} operations, all in float");
        return figure(&title, picture, "");
    }
    let mut html = format!(
        "<p>{computed} operations after constant folding: {integer} run in {programs} integer \
         program{}, {} in float. A box is a chain of operations.</p>\n\
         <p class=\"key\"><span class=\"int8\">INT8</span> <span \
         class=\"float\">float</span></p>\n<div class=\"two\">\n",
        if programs == 1 { "" } else { "s" },
        computed - integer,
    );
    html += &figure("Before", picture, "");
    let picture =
        draw(&after(report), "the graph of the bundle: integer programs and float operations");
    html += &(figure("After", picture, &steps) + "</div>\n");
    if !report.float_nodes.is_empty() {
        html += "<details><summary>Nodes that stay in float, and why</summary>\n<div \
                 class=\"wide\"><table><tr><th>node</th><th>operator</th><th>reason</th></tr>\n";
        for node in &report.float_nodes {
            let [name, operator, reason] =
                [&node.node, &node.operator, &node.reason].map(|text| escaped(text));
            html += &format!(
                "<tr><td class=\"name\">{name}</td><td>{operator}</td><td>{reason}</td></tr>\n"
            );
        }
        html += "</table></div></details>\n";
    }
    html
}

/// Returns the steps of an integer program as boxes. A step reads from the earlier steps that write
/// its input tensors. Steps of one kind that write, or read, parts of the same tensor share a box.
fn steps(program: &IntegerProgram) -> Vec<Shape> {
    let mut writers: HashMap<_, Vec<usize>> = HashMap::new();
    let mut boxes = HashMap::new();
    let (mut shapes, mut counts): (Vec<Shape>, Vec<usize>) = (Vec::new(), Vec::new());
    for (index, step) in program.steps().enumerate() {
        let reads = step.reads().filter_map(|tensor| writers.get(&tensor)).flatten().copied();
        let reads: Vec<usize> = reads.collect();
        let name = program.step_name(index).unwrap_or_default();
        let details = format!("step {index}, {} {}", step.kind(), plain(name));
        let parts = (step.kind(), step.writes().or_else(|| step.reads().next()));
        let at = match boxes.get(&parts) {
            Some(at) if reads.iter().all(|read| read < at) => {
                let shape = &mut shapes[*at];
                shape.reads.extend(reads);
                shape.details += &format!("\n{details}");
                counts[*at] += 1;
                *at
            }
            _ => {
                shapes.push(Shape { label: step.kind().into(), details, class: "int8", reads });
                counts.push(1);
                shapes.len() - 1
            }
        };
        boxes.insert(parts, at);
        if let Some(tensor) = step.writes() {
            writers.entry(tensor).or_default().push(at);
        }
    }
    for (shape, count) in shapes.iter_mut().zip(counts) {
        shape.reads.sort_unstable();
        shape.reads.dedup();
        if count > 1 {
            shape.label += &format!(" × {count}");
        }
    }
    shapes
}

/// Returns the tooltip of a node: where it runs, and the reason if it stays in float.
fn details(node: &GraphNode, reasons: &HashMap<&str, &str>) -> String {
    let place = match (node.program, reasons.get(node.name.as_str())) {
        (Some(program), _) => format!("integer program {program}"),
        (None, Some(reason)) => format!("float: {reason}"),
        (None, None) => "float".into(),
    };
    plain(&format!("{} {} ({place})", node.operator, node.name)).into_owned()
}

/// Returns the reason of each float node by its name.
fn reasons(report: &Report) -> HashMap<&str, &str> {
    let nodes = report.float_nodes.iter();
    nodes.map(|node| (node.node.as_str(), node.reason.as_str())).collect()
}

/// Returns the CSS class of a node.
fn class(node: &GraphNode) -> &'static str {
    match node.program {
        Some(_) => "int8",
        None if node.operator == "Input" => "input",
        None => "float",
    }
}

/// Returns the graph of the model, with a box for each chain of operations.
fn before(report: &Report) -> Vec<Shape> {
    let reasons = reasons(report);
    let one_by_one = |index: usize| (class(&report.graph[index]), None);
    let groups = chains(&report.graph, one_by_one);
    shapes(&report.graph, &groups, |members| {
        let nodes = || members.iter().map(|index| &report.graph[*index]);
        let details: Vec<String> = nodes().map(|node| details(node, &reasons)).collect();
        let names: Vec<&str> = nodes().map(|node| node.operator.as_str()).collect();
        (names.join(" · "), details.join("\n"))
    })
}

/// Returns the graph of the bundle, with one box for each integer program.
fn after(report: &Report) -> Vec<Shape> {
    let reasons = reasons(report);
    let groups = chains(&report.graph, |index| {
        let node = &report.graph[index];
        (class(node), node.program)
    });
    shapes(&report.graph, &groups, |members| {
        let nodes = || members.iter().map(|index| &report.graph[*index]);
        let details: Vec<String> = nodes().map(|node| details(node, &reasons)).collect();
        let names: Vec<&str> = nodes().map(|node| node.operator.as_str()).collect();
        match report.graph[members[0]].program {
            Some(program) => {
                (format!("program {program} · {} ops", members.len()), details.join("\n"))
            }
            None => (names.join(" · "), details.join("\n")),
        }
    })
}

/// Returns the group of each node: the index of its first node. The nodes of a program are one
/// group. Another node joins the group of its only input if it is the only reader, both have one
/// class, and it is not a `Conv` or `Einsum`.
fn chains(
    graph: &[GraphNode],
    place: impl Fn(usize) -> (&'static str, Option<usize>),
) -> Vec<usize> {
    let mut readers = vec![0; graph.len()];
    graph.iter().flat_map(|node| &node.reads).for_each(|read| readers[*read] += 1);
    let mut programs = HashMap::new();
    let mut groups = Vec::new();
    for (index, node) in graph.iter().enumerate() {
        let group = match (place(index), &node.reads[..]) {
            ((_, Some(program)), _) => *programs.entry(program).or_insert(index),
            ((class, None), [read])
                if readers[*read] == 1
                    && class != "input"
                    && place(*read) == (class, None)
                    && !matches!(node.operator.as_str(), "Conv" | "Einsum") =>
            {
                groups[*read]
            }
            _ => index,
        };
        groups.push(group);
    }
    groups
}

/// Returns a shape for each group, in topological order.
fn shapes(
    graph: &[GraphNode],
    groups: &[usize],
    label: impl Fn(&[usize]) -> (String, String),
) -> Vec<Shape> {
    let mut members: HashMap<usize, Vec<usize>> = HashMap::new();
    for (index, group) in groups.iter().enumerate() {
        members.entry(*group).or_default().push(index);
    }
    let mut left: Vec<usize> = members.keys().copied().collect();
    left.sort_unstable();
    let reads = |group: usize| -> Vec<usize> {
        let read = members[&group].iter().flat_map(|index| &graph[*index].reads);
        let mut read: Vec<usize> =
            read.map(|read| groups[*read]).filter(|read| *read != group).collect();
        read.sort_unstable();
        read.dedup();
        read
    };
    let (mut places, mut shapes) = (HashMap::new(), Vec::new());
    while !left.is_empty() {
        let ready = |group: &usize| reads(*group).iter().all(|read| places.contains_key(read));
        // Programs and float chains feed each other in one direction only.
        let at = left.iter().position(ready).unwrap_or(0);
        let group = left.remove(at);
        let (mut text, details) = label(&members[&group]);
        if text.chars().count() > LABEL {
            text = text.chars().take(LABEL - 1).chain(['…']).collect();
        }
        let reads = reads(group).iter().filter_map(|read| places.get(read).copied()).collect();
        places.insert(group, shapes.len());
        shapes.push(Shape { label: text, details, class: class(&graph[group]), reads });
    }
    shapes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(operator: &str, reads: &[usize], program: Option<usize>) -> GraphNode {
        let (name, operator) = (format!("{operator}.n"), operator.to_string());
        GraphNode { name, operator, reads: reads.into(), program }
    }

    #[test]
    fn chains_and_programs_become_one_box_each() {
        let graph = [
            node("Input", &[], None),
            node("Conv", &[0], Some(0)),
            node("Maximum", &[1], Some(0)),
            node("TopK", &[2], None),
            node("Cast", &[3], None),
            node("Conv", &[2], Some(0)),
        ];
        let labels = |shapes: Vec<Shape>| -> Vec<String> {
            shapes.into_iter().map(|shape| shape.label).collect()
        };
        let details = |members: &[usize]| {
            let names: Vec<&str> = members.iter().map(|i| graph[*i].operator.as_str()).collect();
            (names.join("+"), String::new())
        };
        let each = chains(&graph, |index| (class(&graph[index]), None));
        let shown = labels(shapes(&graph, &each, details));
        assert_eq!(shown, ["Input", "Conv+Maximum", "TopK+Cast", "Conv"]);
        let whole = chains(&graph, |index| (class(&graph[index]), graph[index].program));
        let shown = shapes(&graph, &whole, details);
        assert_eq!(shown[2].reads, [1]);
        assert_eq!(labels(shown), ["Input", "Conv+Maximum+Conv", "TopK+Cast"]);
    }
}
