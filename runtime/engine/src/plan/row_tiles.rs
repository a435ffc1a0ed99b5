//! Depth-first execution: computes chains of convolutions in row tiles, so that the intermediate
//! tensors are never in the arena as a whole (MCUNetV2, Lin et al. 2021; Goetschalckx and Verhelst
//! 2019).
//!
//! Row tiles overlap where windows do, and the overlap is computed more than once. Tiles are
//! therefore created only to meet an arena limit, and are as high as the limit allows.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use super::lifetime::spans;
use super::{BuildError, Builder};
use crate::program::{Conv, RowTile, Step, Tensor, TensorId};

/// The length of the longest chain. The row tiles of a step reuse its weights, so the chain must
/// not exceed the reuse distance.
const LONGEST: usize = 6;
const _: () = assert!(LONGEST <= RowTile::LONGEST_REUSE);
/// The number of attempts. Each one lowers the memory goal, because gaps between tensors can make
/// the arena larger than the sum of the live tensors.
const ATTEMPTS: usize = 16;

/// A chain of convolutions. Each one is the only reader of the output of the one before.
#[derive(Clone, Debug)]
struct Chain {
    /// The index of the first step.
    start: usize,
    steps: Vec<Link>,
    /// The bytes of all other tensors that are live during the chain, including the input of the
    /// first convolution and the output of the last.
    around: u64,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    conv: Conv,
    input: Tensor,
    output: Tensor,
}

/// A chain divided into row tiles, with its cost.
#[derive(Clone, Debug)]
struct Cut {
    chain: Chain,
    rows: u32,
    /// The peak number of live bytes.
    live: u64,
    /// The MACs of all row tiles.
    macs: u64,
}

impl Link {
    /// Returns the input rows that the windows of output rows `rows` cover, including padding above
    /// and below the image.
    fn reach(&self, rows: &Range<u32>) -> Range<i64> {
        let [kernel, stride, dilation, pad] = {
            let window = &self.conv.window;
            [window.kernel, window.stride, window.dilation, window.pad].map(|of| i64::from(of[0]))
        };
        let first = i64::from(rows.start) * stride - pad;
        first..i64::from(rows.end - 1) * stride - pad + (kernel - 1) * dilation + 1
    }

    /// Returns the input rows of [`Link::reach`] that are inside the image; `None` if there are
    /// none.
    fn read(&self, rows: &Range<u32>) -> Option<Range<u32>> {
        let reach = self.reach(rows);
        let start = u32::try_from(reach.start.max(0)).ok()?;
        let end = u32::try_from(reach.end.min(self.input.height.into())).ok()?;
        (start < end).then_some(start..end)
    }

    fn macs(&self, rows: &Range<u32>) -> u64 {
        let [height, width] = self.conv.window.kernel.map(u64::from);
        let depth = height * width * u64::from(self.input.channels / self.conv.groups);
        (rows.len() as u64) * row(&self.output) * depth
    }
}

/// Returns the bytes of a row.
fn row(tensor: &Tensor) -> u64 {
    u64::from(tensor.width) * u64::from(tensor.channels)
}

impl Chain {
    fn output(&self) -> Tensor {
        self.steps[self.steps.len() - 1].output
    }

    /// Returns the rows that each step must write to produce rows `last` of the last step. `None`
    /// if a step would read only padding.
    fn rows(&self, last: Range<u32>) -> Option<Vec<Range<u32>>> {
        let mut all = alloc::vec![last];
        for link in self.steps[1..].iter().rev() {
            all.push(link.read(&all[all.len() - 1])?);
        }
        all.reverse();
        self.steps[0].read(&all[0])?;
        Some(all)
    }

    /// Returns the row ranges of the last step's output, in tiles of `rows` rows.
    fn row_tiles(&self, rows: u32) -> impl Iterator<Item = Range<u32>> {
        let height = self.output().height;
        (0..height).step_by(rows as usize).map(move |first| first..height.min(first + rows))
    }

    fn cut(self, rows: u32) -> Option<Cut> {
        let (mut live, mut macs) = (0, 0);
        for tile in self.row_tiles(rows) {
            let written = self.rows(tile)?;
            let between = self.steps.iter().zip(&written).take(self.steps.len() - 1);
            let bytes: Vec<u64> =
                between.map(|(link, rows)| rows.len() as u64 * row(&link.output)).collect();
            let pairs = bytes.windows(2).map(|pair| pair[0] + pair[1]);
            live = pairs.chain(bytes.iter().copied()).fold(live, u64::max);
            let links = self.steps.iter().zip(&written);
            macs += links.map(|(link, rows)| link.macs(rows)).sum::<u64>();
        }
        Some(Cut { live: live + self.around, chain: self, rows, macs })
    }

    /// Returns the MACs of the chain without row tiles.
    fn macs(&self) -> u64 {
        self.steps.iter().map(|link| link.macs(&(0..link.output.height))).sum()
    }
}

impl Builder {
    /// Limits the arena to `bytes`. To meet the limit, [`Builder::finish`] computes chains of
    /// convolutions in row tiles.
    #[must_use]
    pub fn limit_arena(mut self, bytes: u64) -> Self {
        self.arena_limit = Some(bytes);
        self
    }

    /// Divides chains into row tiles until the tensors fit.
    pub(super) fn fit(&mut self, limit: u64) -> Result<(), BuildError> {
        let (tensors, steps) = (self.tensors.clone(), self.steps.clone());
        let (mut goal, mut least) = (limit, u64::MAX);
        for _ in 0..ATTEMPTS {
            while self.make_strips(goal) {}
            let (_, bytes) = self.place()?;
            if u64::from(bytes) <= limit {
                return Ok(());
            }
            least = least.min(bytes.into());
            goal -= goal / 16;
            (self.tensors, self.steps) = (tensors.clone(), steps.clone());
        }
        Err(BuildError::ArenaLimit { limit, least })
    }

    /// Divides a chain at the step with the most live bytes, if they exceed `goal`. Returns whether
    /// a chain was divided.
    fn make_strips(&mut self, goal: u64) -> bool {
        let spans = spans(self.tensors.len(), self.steps.iter().map(|(_, step)| *step));
        let bytes = |id: usize| u64::from(self.tensors[id].1.elements()).next_multiple_of(16);
        let mut live = alloc::vec![0u64; self.steps.len()];
        for (id, span) in spans.iter().enumerate() {
            let Some((first, last)) = *span else { continue };
            live[first as usize..=last as usize].iter_mut().for_each(|sum| *sum += bytes(id));
        }
        let most = live.iter().copied().max().unwrap_or(0);
        let Some(worst) = live.iter().position(|&sum| sum == most && sum > goal) else {
            return false;
        };
        let mut best: Option<Cut> = None;
        for start in worst.saturating_sub(LONGEST - 1)..=worst {
            for length in 2..=LONGEST {
                let Some(chain) = self.chain(start, length, &spans) else { break };
                if start + length <= worst {
                    continue;
                }
                let height = chain.output().height;
                let mut heights: Vec<u32> = (2..=height).map(|n| height.div_ceil(n)).collect();
                heights.dedup();
                for cut in heights.into_iter().filter_map(|rows| chain.clone().cut(rows)) {
                    let key = |cut: &Cut| {
                        let more = cut.macs.saturating_sub(cut.chain.macs());
                        // Prefer the cut that fits with the least extra work, or else the smallest
                        // one.
                        if cut.live <= goal { (0, more) } else { (cut.live, more) }
                    };
                    if cut.live < most && best.as_ref().is_none_or(|best| key(&cut) < key(best)) {
                        best = Some(cut);
                    }
                }
            }
        }
        match best {
            Some(cut) => self.apply(&cut),
            None => return false,
        }
        true
    }

    /// Returns the `length` steps from index `start` if they form a chain.
    fn chain(&self, start: usize, length: usize, spans: &[Option<(u32, u32)>]) -> Option<Chain> {
        let whole = |id: TensorId| self.tensors[usize::from(id)].1;
        let mut steps = Vec::new();
        for (_, step) in self.steps.get(start..start + length)? {
            let Step::Conv(conv) = *step else { return None };
            steps.push(Link { conv, input: whole(conv.input), output: whole(conv.output) });
        }
        let mut between = Vec::new();
        for (index, pair) in (start as u32..).zip(steps.windows(2)) {
            let [first, second] = [pair[0].conv, pair[1].conv];
            let alone = spans[usize::from(first.output)] == Some((index, index + 1));
            let adds = second.residual.is_some_and(|residual| residual.tensor == first.output);
            if first.output != second.input || !alone || adds || first.residual.is_some() {
                return None;
            }
            between.push(usize::from(first.output));
        }
        let (first, last) = (start as u32, (start + length - 1) as u32);
        let around = (0..).zip(spans).filter_map(|(id, span)| {
            let meets = span.is_some_and(|span| span.0 <= last && first <= span.1);
            let bytes = u64::from(self.tensors[id].1.elements()).next_multiple_of(16);
            (meets && !between.contains(&id)).then_some(bytes)
        });
        Some(Chain { start, steps, around: around.sum() })
    }

    /// Replaces a chain by its row tiles.
    fn apply(&mut self, cut: &Cut) {
        let Chain { start, steps: links, .. } = &cut.chain;
        let mut row_tiles = Vec::new();
        for (number, tile) in cut.chain.row_tiles(cut.rows).enumerate() {
            let written = cut.chain.rows(tile).expect("the cut was computed from these rows");
            // The output of the previous step.
            let mut input = None;
            for (index, (link, rows)) in links.iter().zip(&written).enumerate() {
                let reach = link.reach(rows);
                let mut conv = link.conv;
                conv.window.pad[0] = u16::try_from((-reach.start).max(0)).unwrap_or(0);
                let mut tile = RowTile {
                    conv,
                    skipped_rows: 0,
                    first_row: 0,
                    rows: rows.len() as u32,
                    reuse_weights_of: if number == 0 { 0 } else { links.len() as u8 },
                };
                match input {
                    None => tile.skipped_rows = u32::try_from(reach.start).unwrap_or(0),
                    Some(id) => tile.conv.input = id,
                }
                if index + 1 == links.len() {
                    tile.first_row = rows.start;
                } else {
                    tile.conv.output = self.part(link.conv.output, rows, number == 0);
                    input = Some(tile.conv.output);
                }
                row_tiles.push((self.steps[start + index].0.clone(), Step::RowTile(tile)));
            }
        }
        // The first row tile reuses the intermediate tensors, with fewer rows.
        for (index, link) in links[..links.len() - 1].iter().enumerate() {
            let Step::RowTile(tile) = row_tiles[index].1 else { continue };
            self.tensors[usize::from(link.conv.output)].1.height = tile.rows;
        }
        self.steps.splice(*start..start + links.len(), row_tiles);
    }

    /// Adds a tensor for some rows of `whole`, or returns `whole` if `itself` is set.
    fn part(&mut self, whole: TensorId, rows: &Range<u32>, itself: bool) -> TensorId {
        if itself {
            return whole;
        }
        let (name, tensor) = &self.tensors[usize::from(whole)];
        let part = Tensor { height: rows.len() as u32, ..*tensor };
        let name: String = alloc::format!("{name} from row {}", rows.start);
        self.tensors.push((name, part));
        // `finish` reports an index overflow as too many tensors.
        (self.tensors.len() - 1) as TensorId
    }
}
