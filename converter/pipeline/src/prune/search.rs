//! How many channels each group loses: always the step next that loses least for what it saves.

use super::cost::{Cost, Price};
use super::flow::Flow;
use super::groups::Group;
use super::importance::Curve;

/// Channels are kept in multiples of this where a group has at least twice as many: kernels work
/// on so many at once.
const MULTIPLE: usize = 8;
/// The part of a group that stays at least.
const LEAST: f64 = 0.5;
/// How many steps are looked ahead, as a long one may lose less for what it saves.
const AHEAD: usize = 4;

/// Groups on their way to losing channels.
pub struct Search<'a> {
    flow: &'a Flow,
    groups: &'a [Group],
    curves: &'a [Curve],
    cost: &'a Cost,
    measure: fn(&Price) -> f64,
    /// Whether each unit is kept.
    kept: Vec<bool>,
    /// How many units of each group are gone.
    gone: Vec<usize>,
}

impl<'a> Search<'a> {
    /// Begins with everything, to save what `measure` tells of a price.
    pub fn new(
        flow: &'a Flow,
        groups: &'a [Group],
        curves: &'a [Curve],
        cost: &'a Cost,
        measure: fn(&Price) -> f64,
    ) -> Search<'a> {
        let (kept, gone) = (vec![true; flow.units()], vec![0; groups.len()]);
        Search { flow, groups, curves, cost, measure, kept, gone }
    }

    /// The units that are kept so that this part of the cost is gone.
    ///
    /// # Errors
    /// The greatest part that can be.
    pub fn without(mut self, part: f64) -> Result<Vec<bool>, f64> {
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

    /// What is kept if so many of a group are gone.
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

    /// The step that loses least for what it saves: the group, and how many are gone then.
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

    /// The step back that regains most while the goal is still met.
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

/// How many of so many channels may go, the fewest first.
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
    fn at_least_half_of_a_group_stays_in_multiples_where_it_is_large() {
        assert_eq!(steps(40).collect::<Vec<_>>(), [8, 16]);
        assert_eq!(steps(20).collect::<Vec<_>>(), [4]);
        assert_eq!(steps(5).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(steps(1).count(), 0);
    }
}
