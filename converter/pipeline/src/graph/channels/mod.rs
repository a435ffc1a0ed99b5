//! Tracks the channel axis of each value in a graph, and which channels are tied: pruning removes
//! tied channels together, and cross-layer equalization scales them by one factor.

mod layer;
mod layout;

use hardtack::internal::Model;
use hardtack_bundle::graph::ValueId;

pub(crate) use self::layer::{Layer, convolution, matrix_product};
pub(crate) use self::layout::{Layout, channel_axis, rearranged};

/// The number of a set of tied channels. A change to one channel applies to all of its unit.
pub(crate) type Unit = usize;

/// The unit of all channels that must not change.
pub(crate) const KEPT: Unit = 0;

/// The channels of the values of a graph, node by node.
#[derive(Debug)]
pub(crate) struct Channels {
    /// The channels of each node's first output; `None` if they are unknown and must not change.
    layouts: Vec<Option<Layout>>,
    /// The parent of each unit in a union-find forest: a smaller unit, or itself.
    same: Vec<Unit>,
}

impl Default for Channels {
    /// Returns channels without nodes, and with [`KEPT`] as the only unit.
    fn default() -> Channels {
        Channels { layouts: Vec::new(), same: vec![KEPT] }
    }
}

impl Channels {
    /// Appends the channels of the next node's first output.
    pub(crate) fn push(&mut self, layout: Option<Layout>) {
        self.layouts.push(layout);
    }

    /// Returns the channels of each node's first output.
    pub(crate) fn layouts(&self) -> &[Option<Layout>] {
        &self.layouts
    }

    /// Returns the channels of a value, if they are known.
    pub(crate) fn layout(&self, value_id: ValueId) -> Option<&Layout> {
        (value_id.output == 0).then(|| self.layouts[value_id.node as usize].as_ref())?
    }

    /// Returns the number of units, including [`KEPT`].
    pub(crate) fn units(&self) -> usize {
        self.same.len()
    }

    /// Creates `count` new units.
    pub(crate) fn fresh(&mut self, count: usize) -> Vec<Unit> {
        let units = self.same.len()..self.same.len() + count;
        self.same.extend(units.clone());
        units.collect()
    }

    fn find(&self, mut unit: Unit) -> Unit {
        while self.same[unit] != unit {
            unit = self.same[unit];
        }
        unit
    }

    /// Ties two units.
    pub(crate) fn unite(&mut self, a: Unit, b: Unit) {
        let (a, b) = (self.find(a), self.find(b));
        self.same[a.max(b)] = a.min(b);
    }

    /// Ties the channels of two values pairwise. Returns `None` if their axes or sizes differ.
    pub(crate) fn join(&mut self, a: &Layout, b: &Layout) -> Option<()> {
        let matches_axis = a.axis == b.axis && a.units.len() == b.units.len();
        matches_axis.then(|| a.units.iter().zip(&b.units).for_each(|(a, b)| self.unite(*a, *b)))
    }

    /// Marks the channels of a value as [`KEPT`].
    pub(crate) fn keep(&mut self, value_id: ValueId) {
        if let Some(layout) = self.layout(value_id).cloned() {
            layout.units.iter().for_each(|unit| self.unite(KEPT, *unit));
        }
    }

    /// Returns the units of the `count` channels that a layer sums over. If the value's channels
    /// are unknown or not along `axis`, they are marked as [`KEPT`].
    pub(crate) fn read(&mut self, value_id: ValueId, axis: usize, count: usize) -> Vec<Unit> {
        match self.layout(value_id) {
            Some(layout) if layout.axis == axis && layout.units.len() == count => {
                layout.units.clone()
            }
            _ => {
                self.keep(value_id);
                vec![KEPT; count]
            }
        }
    }

    /// Returns the channels of a concatenation along an axis, or `None` if they must not change.
    pub(crate) fn concat(
        &mut self,
        model: &Model,
        values: &[ValueId],
        axis: usize,
    ) -> Option<Layout> {
        let tracked: Vec<Option<Layout>> =
            values.iter().map(|value_id| self.layout(*value_id).cloned()).collect();
        if tracked.iter().flatten().any(|layout| layout.axis != axis) {
            let all: Vec<Layout> = tracked.into_iter().collect::<Option<_>>()?;
            let first = all.first()?.clone();
            all.iter().try_for_each(|other| self.join(&first, other))?;
            return Some(first);
        }
        let mut units = Vec::new();
        for (value_id, layout) in values.iter().zip(tracked) {
            match layout {
                Some(layout) => units.extend(layout.units),
                None => units.extend(std::iter::repeat_n(KEPT, size(model, *value_id, axis)?)),
            }
        }
        Some(Layout { axis, units })
    }

    /// Replaces each unit by the representative of its set, and returns a function that does so for
    /// other lists of units.
    pub(crate) fn settle(&mut self) -> impl Fn(&mut Vec<Unit>) + use<> {
        let found: Vec<Unit> = (0..self.same.len()).map(|unit| self.find(unit)).collect();
        let settle = move |units: &mut Vec<Unit>| {
            units.iter_mut().for_each(|unit| *unit = found[*unit]);
        };
        self.layouts.iter_mut().flatten().for_each(|layout| settle(&mut layout.units));
        settle
    }
}

/// Returns the size of a value along an axis, if it is fixed.
pub(crate) fn size(model: &Model, value_id: ValueId, axis: usize) -> Option<usize> {
    usize::try_from(model.graph.fact(value_id).shape.get(axis)?.value()?).ok()
}
