//! Comparison of the boxes of object detectors in float and in INT8.

use std::fmt;

use hardtack::{Session, Tensor};

/// The threshold of non-maximum suppression, as intersection over union.
const OVERLAP: f32 = 0.45;
/// The least intersection over union of two boxes that count as the same.
const SAME: f32 = 0.9;

/// A box in the model's coordinates.
#[derive(Clone, Copy)]
struct Found {
    class: usize,
    score: f32,
    /// The left, top, right and bottom edges.
    edges: [f32; 4],
}

/// The comparison of boxes and outputs.
pub struct Compared {
    /// The number of boxes of the float model.
    pub before: usize,
    /// The number of boxes of the INT8 model.
    pub after: usize,
    /// The number of boxes of the float model that the INT8 model also finds.
    pub same: usize,
    /// The signal-to-noise ratio of each output, in dB.
    pub noise: Vec<f64>,
}

impl fmt::Display for Compared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = 100.0 * self.same as f64 / self.before.max(1) as f64;
        write!(f, "{} of {} found, {} in total ({part:.1} %)", self.same, self.before, self.after)
    }
}

/// Compares the boxes of the float model and the INT8 model on the same inputs.
pub fn compare(
    name: &str,
    inputs: &[Tensor],
    float: &mut Session,
    int8: &mut Session,
) -> Result<Compared, String> {
    let (mut before, mut after, mut same) = (0, 0, 0);
    let mut sums = [[0.0; 2]; 2];
    for input in inputs {
        let (real, integer) = (run(float, input)?, run(int8, input)?);
        let (expected, got) = (find(name, &real), find(name, &integer));
        let again = |a: &&Found| got.iter().any(|b| a.class == b.class && overlap(a, b) >= SAME);
        same += expected.iter().filter(again).count();
        before += expected.len();
        after += got.len();
        for ((sums, real), integer) in sums.iter_mut().zip(&real).zip(&integer) {
            for (a, b) in real.iter().zip(integer) {
                sums[0] += f64::from(*a).powi(2);
                sums[1] += f64::from(a - b).powi(2);
            }
        }
    }
    let decibels = |[signal, noise]: &[f64; 2]| 10.0 * (signal / noise).log10();
    let noise = sums.iter().filter(|sums| sums[0] > 0.0).map(decibels).collect();
    Ok(Compared { before, after, same, noise })
}

fn run(session: &mut Session, input: &Tensor) -> Result<Vec<Vec<f32>>, String> {
    let port = session.inputs()[0].name.clone();
    let outputs = session.run(&[(&port, input)]).map_err(|error| error.to_string())?;
    Ok(outputs.iter().map(|(_, tensor)| tensor.to_f32()).collect())
}

fn find(name: &str, values: &[Vec<f32>]) -> Vec<Found> {
    suppress(match name {
        "ultraface_rfb_320" => faces(&values[0], &values[1]),
        "fastestdet_352" => cells(&values[0]),
        "mp_palm_detection_lite" => palms(&values[0], &values[1]),
        _ => objects(&values[0]),
    })
}

/// Decodes UltraFace: scores of two classes, and corners relative to the image.
fn faces(scores: &[f32], boxes: &[f32]) -> Vec<Found> {
    let pairs = scores.chunks_exact(2).zip(boxes.chunks_exact(4));
    pairs
        .filter(|(scores, _)| scores[1] > 0.7)
        .map(|(scores, edges)| Found {
            class: 0,
            score: scores[1],
            edges: [edges[0], edges[1], edges[2], edges[3]],
        })
        .collect()
}

/// Decodes YOLOX: for each cell of three grids, the center, the logarithm of the size, objectness
/// and scores of 80 classes.
fn objects(values: &[f32]) -> Vec<Found> {
    let cells = [8, 16, 32].into_iter().flat_map(|stride| {
        let side = 416 / stride;
        (0..side * side).map(move |cell| [stride, cell % side, cell / side].map(|v| v as f32))
    });
    let rows = values.chunks_exact(85).zip(cells);
    rows.filter_map(|(row, [stride, x, y])| {
        let (class, best) =
            row[5..].iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).expect("80 classes");
        let score = row[4] * best;
        let centre = [(row[0] + x) * stride, (row[1] + y) * stride];
        let half = [row[2].exp() * stride / 2.0, row[3].exp() * stride / 2.0];
        let edges =
            [centre[0] - half[0], centre[1] - half[1], centre[0] + half[0], centre[1] + half[1]];
        (score > 0.4).then_some(Found { class, score, edges })
    })
    .collect()
}

/// Decodes FastestDet: objectness, offsets and size of a box, and 80 class scores, for each cell of
/// a grid.
fn cells(values: &[f32]) -> Vec<Found> {
    const SIDE: usize = 22;
    let at = |channel: usize, cell: usize| values[channel * SIDE * SIDE + cell];
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    let found = (0..SIDE * SIDE).filter_map(|cell| {
        let classes = (0..80).map(|class| (class, at(5 + class, cell)));
        let (class, best) = classes.max_by(|a, b| a.1.total_cmp(&b.1)).expect("80 classes");
        let score = at(0, cell).powf(0.6) * best.powf(0.4);
        let [x, y] = [(cell % SIDE, 1), (cell / SIDE, 2)]
            .map(|(place, channel)| (place as f32 + at(channel, cell).tanh()) / SIDE as f32);
        let [width, height] = [3, 4].map(|channel| sigmoid(at(channel, cell)));
        let edges = [x - width / 2.0, y - height / 2.0, x + width / 2.0, y + height / 2.0];
        (score > 0.65).then_some(Found { class, score, edges })
    });
    found.collect()
}

/// Decodes palm detection: 18 coordinates relative to an anchor in pixels, and a score, for two
/// anchors in each cell of a 24 by 24 grid and six in each cell of a 12 by 12 grid.
fn palms(boxes: &[f32], scores: &[f32]) -> Vec<Found> {
    let anchors = [(24, 2), (12, 6)].into_iter().flat_map(|(side, count)| {
        (0..side * side * count).map(move |index| {
            let cell = index / count;
            [cell % side, cell / side].map(|place| (place as f32 + 0.5) * 192.0 / side as f32)
        })
    });
    let found = boxes.chunks_exact(18).zip(scores).zip(anchors);
    let found = found.filter_map(|((values, score), [x, y])| {
        let score = 1.0 / (1.0 + (-score).exp());
        let (x, y) = (x + values[0], y + values[1]);
        let [width, height] = [values[2], values[3]].map(|size| size / 2.0);
        let edges = [x - width, y - height, x + width, y + height];
        (score > 0.5).then_some(Found { class: 0, score, edges })
    });
    found.collect()
}

/// Non-maximum suppression: removes boxes that overlap a better one of their class.
fn suppress(mut found: Vec<Found>) -> Vec<Found> {
    found.sort_by(|a, b| b.score.total_cmp(&a.score));
    let mut kept: Vec<Found> = Vec::new();
    for candidate in found {
        let covered = |better: &Found| {
            better.class == candidate.class && overlap(better, &candidate) > OVERLAP
        };
        if !kept.iter().any(covered) {
            kept.push(candidate);
        }
    }
    kept
}

/// Returns the intersection over union.
fn overlap(a: &Found, b: &Found) -> f32 {
    let area =
        |[left, top, right, bottom]: [f32; 4]| (right - left).max(0.0) * (bottom - top).max(0.0);
    let both = area([
        a.edges[0].max(b.edges[0]),
        a.edges[1].max(b.edges[1]),
        a.edges[2].min(b.edges[2]),
        a.edges[3].min(b.edges[3]),
    ]);
    both / (area(a.edges) + area(b.edges) - both).max(f32::MIN_POSITIVE)
}
