//! Draws graphs of operations from top to bottom: each node is below the nodes that it reads.
//!
//! The row of a node is its longest path from an input. An edge that crosses rows occupies a place
//! in each. The places of a row are ordered by the mean position of their neighbors (Sugiyama,
//! Tagawa and Toda, "Methods for Visual Understanding of Hierarchical System Structures", 1981).

use std::fmt::Write as _;

use crate::output::escaped;

/// A node of the graph.
pub struct Shape {
    /// The text in the box.
    pub label: String,
    /// The tooltip.
    pub details: String,
    /// The CSS class.
    pub class: &'static str,
    /// The indices of the nodes that it reads.
    pub reads: Vec<usize>,
}

/// The distance between the tops of two rows.
const ROW: f64 = 40.0;
/// The height of a node.
const HEIGHT: f64 = 24.0;
/// The horizontal gap between the places of a row.
const GAP: f64 = 12.0;
/// The width of a character.
const LETTER: f64 = 6.6;
/// The width of the place of an edge that crosses a row.
const PASSING: f64 = 8.0;
/// The number of times that all places are moved towards their neighbors.
const ROUNDS: usize = 12;
/// The maximum number of places for edges; further edges are drawn straight.
const MOST_PASSING: usize = 4000;

/// A place in a row: a node, or an edge that crosses the row.
struct Place {
    node: Option<usize>,
    row: usize,
    width: f64,
    x: f64,
    above: Vec<usize>,
    below: Vec<usize>,
}

/// Draws a graph in topological order as SVG.
pub fn draw(shapes: &[Shape], label: &str) -> String {
    let mut places = places(shapes);
    let mut rows = vec![Vec::new(); places.iter().map(|place| place.row + 1).max().unwrap_or(0)];
    for (index, place) in places.iter().enumerate() {
        rows[place.row].push(index);
    }
    arrange(&mut places, &mut rows);
    let ends = |side: f64| places.iter().map(move |place| place.x + side * place.width / 2.0);
    let left = ends(-1.0).reduce(f64::min).unwrap_or(0.0) - GAP;
    let right = ends(1.0).reduce(f64::max).unwrap_or(0.0) + GAP;
    let (width, height) = (right - left, rows.len() as f64 * ROW + GAP);
    let mut svg = format!(
        "<svg class=\"graph\" role=\"img\" aria-label=\"{}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" viewBox=\"{left:.0} 0 {width:.0} {height:.0}\">\n<path d=\"",
        escaped(label)
    );
    let top = |place: &Place| place.row as f64 * ROW + GAP;
    let bottom = |place: &Place| top(place) + HEIGHT;
    for from in &places {
        for below in &from.below {
            let to = &places[*below];
            let (y, end) = (bottom(from), top(to));
            let middle = (y + end) / 2.0;
            let _ = write!(
                svg,
                "M{:.0} {y:.0}C{:.0} {middle:.0} {:.0} {middle:.0} {:.0} {end:.0}",
                from.x, from.x, to.x, to.x
            );
        }
        if from.node.is_none() {
            let _ = write!(svg, "M{:.0} {:.0}v{HEIGHT:.0}", from.x, top(from));
        }
    }
    svg += "\"/>\n";
    for place in &places {
        let Some(shape) = place.node.map(|node| &shapes[node]) else { continue };
        let _ = writeln!(
            svg,
            "<g class=\"{}\"><title>{}</title><rect x=\"{:.1}\" y=\"{:.0}\" width=\"{:.1}\" \
             height=\"{HEIGHT:.0}\" rx=\"5\"/><text x=\"{:.1}\" y=\"{:.0}\">{}</text></g>",
            shape.class,
            escaped(&shape.details),
            place.x - place.width / 2.0,
            top(place),
            place.width,
            place.x,
            top(place) + 16.0,
            escaped(&shape.label),
        );
    }
    svg + "</svg>"
}

/// Returns a place for each node, and one for each row that an edge crosses.
fn places(shapes: &[Shape]) -> Vec<Place> {
    let mut row = vec![0usize; shapes.len()];
    for (index, shape) in shapes.iter().enumerate() {
        let above = shape.reads.iter().filter(|read| **read < index);
        row[index] = above.map(|read| row[*read] + 1).max().unwrap_or(0);
    }
    // An input is directly above its first reader.
    for index in (0..shapes.len()).filter(|index| shapes[*index].reads.is_empty()) {
        let readers = (0..shapes.len()).filter(|reader| shapes[*reader].reads.contains(&index));
        row[index] = readers.map(|reader| row[reader].saturating_sub(1)).min().unwrap_or(0);
    }
    let place =
        |node, row, width| Place { node, row, width, x: 0.0, above: Vec::new(), below: Vec::new() };
    let width = |label: &str| label.chars().count() as f64 * LETTER + 16.0;
    let mut places: Vec<Place> = (shapes.iter().enumerate())
        .map(|(index, shape)| place(Some(index), row[index], width(&shape.label)))
        .collect();
    for (index, shape) in shapes.iter().enumerate() {
        for &read in shape.reads.iter().filter(|read| **read < index) {
            let mut above = read;
            for passed in row[read] + 1..row[index] {
                if places.len() > shapes.len() + MOST_PASSING {
                    break;
                }
                let next = places.len();
                places.push(place(None, passed, PASSING));
                places[above].below.push(next);
                places[next].above.push(above);
                above = next;
            }
            places[above].below.push(index);
            places[index].above.push(above);
        }
    }
    places
}

/// Orders the places of each row and moves them towards their neighbors in the adjacent rows.
fn arrange(places: &mut [Place], rows: &mut [Vec<usize>]) {
    for row in rows.iter() {
        spread(places, row);
    }
    for round in 0..ROUNDS {
        let count = rows.len();
        for step in 0..count {
            let row = &mut rows[if round % 2 == 0 { step } else { count - 1 - step }];
            for &index in row.iter() {
                let place = &places[index];
                let near = match round % 2 {
                    0 => &place.above,
                    _ => &place.below,
                };
                if !near.is_empty() {
                    let sum: f64 = near.iter().map(|other| places[*other].x).sum();
                    places[index].x = sum / near.len() as f64;
                }
            }
            // The order is fixed after the first half of the rounds.
            if round < ROUNDS / 2 {
                row.sort_by(|a, b| places[*a].x.total_cmp(&places[*b].x));
            }
            part(places, row);
        }
    }
}

/// Positions the places of a row side by side, centered at 0.
fn spread(places: &mut [Place], row: &[usize]) {
    let mut x = 0.0;
    for index in row {
        places[*index].x = x + places[*index].width / 2.0;
        x += places[*index].width + GAP;
    }
    row.iter().for_each(|index| places[*index].x -= x / 2.0);
}

/// Separates overlapping places of a row: takes the mean of pushing all to the right and to the
/// left.
fn part(places: &mut [Place], row: &[usize]) {
    let apart = |a: &Place, b: &Place| (a.width + b.width) / 2.0 + GAP;
    let mut right: Vec<f64> = row.iter().map(|index| places[*index].x).collect();
    let mut left = right.clone();
    for i in 1..row.len() {
        let least = right[i - 1] + apart(&places[row[i - 1]], &places[row[i]]);
        right[i] = right[i].max(least);
    }
    for i in (1..row.len()).rev() {
        let most = left[i] - apart(&places[row[i - 1]], &places[row[i]]);
        left[i - 1] = left[i - 1].min(most);
    }
    for (i, index) in row.iter().enumerate() {
        places[*index].x = (right[i] + left[i]) / 2.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(label: &str, reads: &[usize]) -> Shape {
        Shape { label: label.into(), details: label.into(), class: "float", reads: reads.into() }
    }

    #[test]
    fn nodes_of_a_row_do_not_overlap_and_edges_cross_rows() {
        let shapes = [
            shape("Input", &[]),
            shape("Conv", &[0]),
            shape("Conv", &[0]),
            shape("Tanh", &[1]),
            shape("Add", &[3, 2, 0]),
        ];
        let mut places = places(&shapes);
        let rows: Vec<usize> = places.iter().map(|place| place.row).collect();
        assert_eq!(rows, [0, 1, 1, 2, 3, 2, 1, 2]);
        let mut by_row = vec![vec![0], vec![1, 2, 6], vec![3, 5, 7], vec![4]];
        arrange(&mut places, &mut by_row);
        for row in &by_row {
            for pair in row.windows(2) {
                let (a, b) = (&places[pair[0]], &places[pair[1]]);
                assert!(b.x - a.x >= (a.width + b.width) / 2.0, "{} {}", a.x, b.x);
            }
        }
        let svg = draw(&shapes, "graph");
        let edges = svg.split_once("\"/>").unwrap().0;
        // Six edges, which cross three rows in total.
        assert_eq!((svg.matches("<rect").count(), edges.matches('C').count()), (5, 6 + 3));
    }

    #[test]
    fn an_empty_graph_can_be_drawn() {
        assert!(draw(&[], "nothing").ends_with("</svg>"));
    }
}
