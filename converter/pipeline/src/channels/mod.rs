//! Where each value of a graph has its channels, and which of them are the same: those that pruning
//! takes away together, and that equalization multiplies by one factor.

mod layer;
mod layout;

use hardtack::Model;
use hardtack_bundle::graph::Outlet;

pub use self::layer::{Layer, convolution, matrix_product, real};
pub use self::layout::{Layout, channel_axis, rearranged};

/// A channel by its number. What happens to a channel happens to all of the same number.
pub type Unit = usize;

/// Every channel that has to stay as it is.
pub const KEPT: Unit = 0;

/// The channels of the values of a graph, node by node.
#[derive(Debug)]
pub struct Channels {
    /// Channels of each node's first output; what has none stays as it is.
    layouts: Vec<Option<Layout>>,
    /// What each unit stands for, a smaller one or itself.
    same: Vec<Unit>,
}

impl Default for Channels {
    /// [`KEPT`] alone.
    fn default() -> Channels {
        Channels { layouts: Vec::new(), same: vec![KEPT] }
    }
}

impl Channels {
    /// Appends those of the next node.
    pub fn push(&mut self, layout: Option<Layout>) {
        self.layouts.push(layout);
    }

    /// Those of each node's first output.
    pub fn layouts(&self) -> &[Option<Layout>] {
        &self.layouts
    }

    /// Those of a value.
    pub fn layout(&self, outlet: Outlet) -> Option<&Layout> {
        (outlet.slot == 0).then(|| self.layouts[outlet.node as usize].as_ref())?
    }

    /// How many units there are, [`KEPT`] among them.
    pub fn units(&self) -> usize {
        self.same.len()
    }

    /// New ones.
    pub fn fresh(&mut self, count: usize) -> Vec<Unit> {
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

    /// Makes two one.
    pub fn unite(&mut self, a: Unit, b: Unit) {
        let (a, b) = (self.find(a), self.find(b));
        self.same[a.max(b)] = a.min(b);
    }

    /// Makes the channels of two values one by one the same; `None` where they are not where those
    /// are.
    pub fn join(&mut self, a: &Layout, b: &Layout) -> Option<()> {
        let alike = a.axis == b.axis && a.units.len() == b.units.len();
        alike.then(|| a.units.iter().zip(&b.units).for_each(|(a, b)| self.unite(*a, *b)))
    }

    /// Leaves the channels of a value as they are.
    pub fn keep(&mut self, outlet: Outlet) {
        if let Some(layout) = self.layout(outlet).cloned() {
            layout.units.iter().for_each(|unit| self.unite(KEPT, *unit));
        }
    }

    /// The channels that a layer sums over; another axis of the value stays as it is.
    pub fn read(&mut self, outlet: Outlet, axis: usize, count: usize) -> Vec<Unit> {
        match self.layout(outlet) {
            Some(layout) if layout.axis == axis && layout.units.len() == count => {
                layout.units.clone()
            }
            _ => {
                self.keep(outlet);
                vec![KEPT; count]
            }
        }
    }

    /// Those of values that stand one after another along an axis; `None` where they have to stay
    /// as they are.
    pub fn concat(&mut self, model: &Model, values: &[Outlet], axis: usize) -> Option<Layout> {
        let tracked: Vec<Option<Layout>> =
            values.iter().map(|outlet| self.layout(*outlet).cloned()).collect();
        if tracked.iter().flatten().any(|layout| layout.axis != axis) {
            let all: Vec<Layout> = tracked.into_iter().collect::<Option<_>>()?;
            let first = all.first()?.clone();
            all.iter().try_for_each(|other| self.join(&first, other))?;
            return Some(first);
        }
        let mut units = Vec::new();
        for (outlet, layout) in values.iter().zip(tracked) {
            match layout {
                Some(layout) => units.extend(layout.units),
                None => units.extend(std::iter::repeat_n(KEPT, size(model, *outlet, axis)?)),
            }
        }
        Some(Layout { axis, units })
    }

    /// Gives the same number to what is the same, here and, with what it gives, elsewhere.
    pub fn settle(&mut self) -> impl Fn(&mut Vec<Unit>) + use<> {
        let found: Vec<Unit> = (0..self.same.len()).map(|unit| self.find(unit)).collect();
        let settle = move |units: &mut Vec<Unit>| {
            units.iter_mut().for_each(|unit| *unit = found[*unit]);
        };
        self.layouts.iter_mut().flatten().for_each(|layout| settle(&mut layout.units));
        settle
    }
}

/// How many elements a value has along an axis, if that is a number.
pub fn size(model: &Model, outlet: Outlet, axis: usize) -> Option<usize> {
    usize::try_from(model.graph.fact(outlet).shape.get(axis)?.value()?).ok()
}
