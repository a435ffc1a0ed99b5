//! How many channels each group loses: always the step next that loses least for what it saves.

use super::PruneTarget;
use super::cost::{Cost, Price};
use super::flow::Flow;
use super::groups::Group;
use super::importance::Curve;

/// Channels are kept in multiples of this where a group has as many, as kernels work on so many
/// at once.
const MULTIPLE: usize = 8;
/// The part of a group that stays at least.
const LEAST: f64 = 0.5;

/// The units that are kept, or the greatest part that could be taken away.
pub fn search(
    flow: &Flow,
    groups: &[Group],
    curves: &[Curve],
    cost: &Cost,
    target: PruneTarget,
) -> Result<Vec<bool>, f64> {
    let mut kept = vec![true; flow.units()];
    let measure = |price: Price| match target {
        PruneTarget::Macs(_) => price.macs,
        PruneTarget::Bytes(_) => price.bytes,
    };
    let (PruneTarget::Macs(part) | PruneTarget::Bytes(part)) = target;
    let all = measure(cost.of(flow, &kept));
    let mut gone = vec![0; groups.len()];
    loop {
        let now = measure(cost.of(flow, &kept));
        if now <= all * (1.0 - part) {
            return Ok(kept);
        }
        let mut best: Option<(f64, usize, usize)> = None;
        for (index, (group, curve)) in groups.iter().zip(curves).enumerate() {
            let mut tried = kept.clone();
            let mut at = gone[index];
            for next in steps(group.units.len()).filter(|next| *next > gone[index]) {
                curve.order[at..next].iter().for_each(|unit| tried[*unit] = false);
                at = next;
                let saved = now - measure(cost.of(flow, &tried));
                let ratio = (curve.loss[next] - curve.loss[gone[index]]) / saved;
                if saved > 0.0 && best.is_none_or(|(least, ..)| ratio < least) {
                    best = Some((ratio, index, next));
                }
            }
        }
        let Some((_, index, next)) = best else { return Err(1.0 - now / all) };
        curves[index].order[gone[index]..next].iter().for_each(|unit| kept[*unit] = false);
        gone[index] = next;
    }
}

/// How many of so many channels may be removed.
fn steps(channels: usize) -> impl Iterator<Item = usize> {
    let multiple = if channels >= 2 * MULTIPLE { MULTIPLE } else { 1 };
    let least = ((channels as f64 * LEAST).ceil() as usize).max(1);
    (least..channels)
        .rev()
        .filter(move |kept| kept % multiple == 0)
        .map(move |kept| channels - kept)
}
