//! The last stages: builds the bundle with its test vectors, and writes the files.

use std::io::Write as _;
use std::path::Path;

use hardtack::{Bundle, Limits, Session, SessionOptions, golden};
use hardtack_bundle::graph::Graph;
use hardtack_bundle::{DType, Sealed};

use super::prepare::Prepared;
use super::{Conversion, NOISE_MULTIPLE, size};
use crate::atomic_file::AtomicFile;
use crate::emit::{self, Contents};
use crate::error::Error;
use crate::float_run;
use crate::offloaded_model::ModelSource as _;
use crate::report::Report;
use crate::samples::{First, Samples};
use crate::{parity, storage};

impl Conversion<'_> {
    pub(super) fn emit(
        &mut self,
        prepared: Prepared,
        samples: &Samples,
    ) -> Result<Sealed<'static>, Error> {
        let began = self.begin("emit");
        let source = self.source.as_ref().expect("imported before");
        let affordable = match samples.are_user_data() {
            // The model could not run on any generated sample, so there is nothing to generate.
            true if samples.inputs.count() == 0 => 1,
            true => emit::affordable(&*samples.inputs, size(&prepared.model).1)?,
            false => 1,
        };
        let generated;
        let (golden, count) = match affordable {
            0 => {
                generated = self.generated(prepared.model.graph(), samples)?;
                (&generated, 1)
            }
            count => (samples, count),
        };
        let few = First(&*golden.inputs, count);
        let outputs = float_run::outputs(&prepared.model, &few)?;
        // Dynamic quantization amplifies rounding: a different summation order can select a
        // different integer.
        let rounding = match storage::dynamic::constants(prepared.model.graph()).is_empty() {
            true => 0.0,
            false => {
                NOISE_MULTIPLE * parity::sensitivity(&prepared.model, &few, &outputs)?.of_range
            }
        };
        let (nodes, size) = (prepared.model.graph().nodes.len(), size(&prepared.model));
        let contents = Contents {
            prepared: prepared.prepared,
            name: &self.name,
            signature: self.signature(),
            source,
            options: &self.options,
            figures: &self.figures,
            readings: self.readings.as_ref(),
            float_nodes: &self.float_nodes,
            arena_bytes: self.arena_bytes,
            golden: (golden, &outputs),
            rounding,
        };
        let bundle = emit::emit(prepared.model.load()?, &contents)?;
        self.digest = bundle.root().to_string();
        self.end_of("emit", began, (nodes, size), None);
        Ok(bundle)
    }

    /// Generates one sample within the range of the first calibration sample.
    fn generated(&self, graph: &Graph, samples: &Samples) -> Result<Samples, Error> {
        let mut random = Samples::generated(graph, 1)?;
        let mut inputs = Vec::new();
        let real = samples.inputs.sample(0)?;
        let rules = random.generators[0].iter_mut().zip(&graph.inputs);
        for (index, (real, (generator, input))) in real.iter().zip(rules).enumerate() {
            if let Some(default) = self.signature().inputs[index].default() {
                inputs.push(default.clone());
                continue;
            }
            if matches!(real.dtype(), DType::F32 | DType::I8 | DType::U8) {
                let values = real.to_f32();
                generator.low = values.iter().copied().fold(f32::INFINITY, f32::min);
                generator.high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                if real.dtype() != DType::F32 {
                    // The generator's upper bound is exclusive; include the greatest integer.
                    generator.high += 1.0;
                }
            }
            let generated = hardtack::golden::generate(real.dtype(), real.shape(), generator);
            inputs.push(generated.ok_or_else(|| Error::Input {
                input: graph.nodes[*input as usize].name.clone(),
                shape: real.shape().into(),
            })?);
        }
        random.inputs = Box::new(vec![inputs]);
        Ok(random)
    }

    pub(super) fn write(self, output: &Path, bundle: &Sealed<'_>) -> Result<Report, Error> {
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |source| Error::Write { path, source }
        };
        verify(bundle)?;
        let mut file = AtomicFile::new(output)?;
        bundle.write(|piece| file.write_all(piece)).map_err(failed(output))?;
        let mut transport_bytes = None;
        // Write both files completely before either is renamed into place.
        if let Some(path) = &self.options.transport {
            let mut compressed = AtomicFile::new(path)?;
            let packed = hardtack_transport::pack(&bundle.to_bytes())?;
            compressed.write_all(&packed).map_err(failed(path))?;
            transport_bytes = Some(packed.len() as u64);
            compressed.put()?;
        }
        file.put()?;
        let source = self.source.expect("imported before");
        Ok(Report {
            name: self.name,
            digest: self.digest,
            source_bytes: source.bytes,
            bundle_bytes: bundle.len(),
            transport_bytes,
            stages: self.stages,
            figures: self.figures,
            readings: self.readings,
            rewritten: source.rewritten,
            pruned: self.pruned,
            float_nodes: self.float_nodes,
            int16_nodes: self.int16_nodes,
            graph: self.graph,
            layers: self.layers,
            arena_bytes: self.arena_bytes,
            warnings: self.warnings,
        })
    }
}

/// Checks that the bundle reproduces its own test vectors, as `hardtack verify` does.
fn verify(bundle: &Sealed<'_>) -> Result<(), Error> {
    let bundle = Bundle::from_bytes(bundle.to_bytes()).map_err(Error::Session)?;
    let options = SessionOptions { limits: Limits::NONE, ..SessionOptions::default() };
    let mut session = Session::with_options(&bundle, options).map_err(Error::Session)?;
    let report = golden::check(&bundle, &mut session).map_err(Error::Session)?;
    match report.outputs.iter().find(|output| !output.holds) {
        Some(wrong) => {
            Err(Error::TestVectors { output: wrong.name.clone(), difference: wrong.difference })
        }
        None => Ok(()),
    }
}
