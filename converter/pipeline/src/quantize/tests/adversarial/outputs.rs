//! The outputs of random networks.

use hardtack_bundle::graph::*;

use super::layers::{Adversary, Gauge, Signal};
use super::networks::{MASKED, Maker};

impl Maker {
    /// Returns the scales of output columns.
    fn of_outputs(&mut self, columns: usize) -> Gauge {
        let mut gauge = Gauge::plain(columns);
        if self.layers.acts(Adversary::OutputMagnitudes) {
            gauge.scale.fill_with(|| self.layers.random.magnitude(-3.0, 3.0));
        }
        gauge
    }

    /// Adds the outputs.
    pub(super) fn head(&mut self, x: &Signal) {
        let (axis, rank) = (x.axis, x.value.shape.len());
        if rank == 2 {
            return self.vector(x);
        }
        let columns = 2 + self.below(4);
        match self.below(9) {
            0 => {
                self.part("output as it is");
                self.outputs.push((x.value.clone(), Some(axis)));
            }
            1 => {
                self.part("linear output");
                let gauge = self.of_outputs(columns);
                let y = self.layers.linear(x, gauge);
                self.outputs.push((y.value, Some(axis)));
            }
            2 | 3 => self.two_outputs(x, columns),
            4 => {
                self.part("softmax output");
                let y = self.layers.linear(x, Gauge::plain(columns));
                let y = self.layers.softmax(&y.value, axis);
                self.outputs.push((y, None));
            }
            _ => {
                self.part("mean");
                let axes: Vec<usize> = (1..rank).filter(|other| *other != axis).collect();
                let mean = self.layers.mean(&x.value, &axes);
                let flat = self.layers.flat(&mean);
                self.vector(&Signal { value: flat, axis: 1, gauge: x.gauge.clone() });
            }
        }
    }

    /// Adds two outputs, or one that joins their columns.
    fn two_outputs(&mut self, x: &Signal, columns: usize) {
        let factor = match self.layers.acts(Adversary::OutputMagnitudes) {
            true => self.layers.random.magnitude(-3.0, 3.0),
            false => 1.0,
        };
        let gauge = Gauge { scale: vec![factor; columns], ..Gauge::plain(columns) };
        let a = self.layers.linear(x, gauge);
        let b = self.layers.linear(x, Gauge::plain(2 + columns));
        let b = self.layers.net.unary(Unary::Sigmoid, &b.value);
        if self.below(2) == 0 {
            self.part(format!("two outputs, the first times {factor}"));
            self.outputs.extend([(a.value, Some(x.axis)), (b, Some(x.axis))]);
            return;
        }
        self.part(format!("joined output, the first columns times {factor}"));
        let joined = self.layers.concatenated(x.axis, &[&a.value, &b]);
        self.outputs.push((joined, Some(x.axis)));
    }

    /// Adds outputs that are vectors.
    fn vector(&mut self, x: &Signal) {
        let columns = 2 + self.below(8);
        match self.below(8) {
            0 | 1 => {
                self.part("linear output");
                let gauge = self.of_outputs(columns);
                let y = self.layers.linear(x, gauge);
                self.outputs.push((y.value, Some(1)));
            }
            2 => {
                self.part("estimate");
                let offset = self.layers.random.magnitude(0.0, 4.0);
                let gauge = Gauge { offset: vec![offset], ..Gauge::plain(1) };
                let y = self.layers.linear(x, gauge);
                self.outputs.push((y.value, None));
            }
            3 | 4 => self.two_outputs(x, columns),
            kind => {
                let y = self.layers.linear(x, Gauge::plain(columns));
                let mut mask = vec![0.0; columns];
                mask[1..].fill_with(|| [0.0, MASKED][self.layers.random.below(2)]);
                let mask = self.layers.along(&y, mask);
                let masked = self.layers.net.binary(Binary::Add, &y.value, &mask);
                match kind {
                    5 => {
                        self.part("masked logits");
                        self.outputs.push((masked, Some(1)));
                    }
                    6 => {
                        self.part("masked softmax");
                        let y = self.layers.softmax(&masked, 1);
                        self.outputs.push((y, None));
                    }
                    _ => {
                        self.part("softmax output");
                        let y = self.layers.softmax(&y.value, 1);
                        self.outputs.push((y, None));
                    }
                }
            }
        }
    }
}
