//! Chooses how many channels each group loses, by greedy search for the lowest loss per saved cost.

use super::cost::Cost;
use super::flow::Flow;
use super::groups::Group;
use super::importance::Curve;
use crate::report::Price;

/// Groups of at least twice this many channels keep a multiple of it, as kernels process that many
/// channels at once.
const MULTIPLE: usize = 8;
/// The minimum fraction of a group's channels that is kept.
const LEAST: f64 = 0.5;
/// The number of candidate steps per group: a larger step may lose less per saved cost.
const AHEAD: usize = 4;

/// The state of the search.
pub(super) struct Search<'a> {
    flow: &'a Flow,
    groups: &'a [Group],
    curves: &'a [Curve],
    cost: &'a Cost,
    measure: fn(&Price) -> f64,
    /// Whether each unit is kept.
    kept: Vec<bool>,
    /// The number of removed units of each group.
    gone: Vec<usize>,
}

impl<'a> Search<'a> {
    /// Starts with all units kept. `measure` selects the cost to reduce.
    pub(super) fn new(
        flow: &'a Flow,
        groups: &'a [Group],
        curves: &'a [Curve],
        cost: &'a Cost,
        measure: fn(&Price) -> f64,
    ) -> Search<'a> {
        let (kept, gone) = (vec![true; flow.units()], vec![0; groups.len()]);
        Search { flow, groups, curves, cost, measure, kept, gone }
    }

    /// Removes units until the fraction `part` of the cost is gone. Returns whether each unit is
    /// kept.
    ///
    /// # Errors
    /// Returns the largest fraction that can be removed.
    pub(super) fn without(mut self, part: f64) -> Result<Vec<bool>, f64> {
        let all = self.price(&self.kept);
        let goal = all * (1.0 - part);
        while self.price(&self.kept) > goal {
            let now = self.price(&self.kept);
            let (group, gone) = self.cheapest(now).ok_or(1.0 - now / all)?;
            self.go(group, gone);
        }
        while let Some((group, gone)) = self.dearest_in_vain(goal) {
            self.go(group, gone);
        }
        Ok(self.kept)
    }

    fn price(&self, kept: &[bool]) -> f64 {
        (self.measure)(&self.cost.of(self.flow, kept))
    }

    /// Returns whether each unit is kept if the first `gone` units of a group are removed.
    fn with(&self, group: usize, gone: usize) -> Vec<bool> {
        let mut kept = self.kept.clone();
        let order = self.curves[group].order.iter().enumerate();
        order.for_each(|(at, unit)| kept[*unit] = at >= gone);
        kept
    }

    fn go(&mut self, group: usize, gone: usize) {
        self.kept = self.with(group, gone);
        self.gone[group] = gone;
    }

    /// Returns the step with the lowest loss per saved cost: the group, and its number of removed
    /// units.
    fn cheapest(&self, now: f64) -> Option<(usize, usize)> {
        let mut best: Option<(f64, (usize, usize))> = None;
        for (index, group) in self.groups.iter().enumerate() {
            let loss = &self.curves[index].loss;
            let further = steps(group.units.len()).filter(|step| *step > self.gone[index]);
            for step in further.take(AHEAD) {
                let saved = now - self.price(&self.with(index, step));
                let ratio = (loss[step] - loss[self.gone[index]]) / saved;
                if saved > 0.0 && best.is_none_or(|(least, _)| ratio < least) {
                    best = Some((ratio, (index, step)));
                }
            }
        }
        best.map(|(_, step)| step)
    }

    /// Returns the step back that regains the most loss while the goal is still met.
    fn dearest_in_vain(&self, goal: f64) -> Option<(usize, usize)> {
        let mut best: Option<(f64, (usize, usize))> = None;
        for (index, group) in self.groups.iter().enumerate() {
            let loss = &self.curves[index].loss;
            let back = [0].into_iter().chain(steps(group.units.len()));
            for step in back.filter(|step| *step < self.gone[index]) {
                let gain = loss[self.gone[index]] - loss[step];
                let better = best.is_none_or(|(most, _)| gain > most);
                if better && self.price(&self.with(index, step)) <= goal {
                    best = Some((gain, (index, step)));
                }
            }
        }
        best.map(|(_, step)| step)
    }
}

/// Returns the allowed numbers of removed channels of a group, in ascending order.
fn steps(channels: usize) -> impl Iterator<Item = usize> {
    let multiple = if channels >= 2 * MULTIPLE { MULTIPLE } else { 1 };
    let least = ((channels as f64 * LEAST).ceil() as usize).max(1);
    let kept = (least..channels).rev().filter(move |kept| kept % multiple == 0);
    kept.map(move |kept| channels - kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_groups_keep_at_least_half_in_multiples_of_eight() {
        assert_eq!(steps(40).collect::<Vec<_>>(), [8, 16]);
        assert_eq!(steps(20).collect::<Vec<_>>(), [4]);
        assert_eq!(steps(5).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(steps(1).count(), 0);
    }
}
