//! Runs one model with one Rust runtime, in a separate process. The protocol is that of
//! `worker.py`.
//!
//!     hardtack-peers --peer tract|rten --model FILE --threads N

use std::error::Error;
use std::io::{BufRead as _, Write as _};
use std::sync::Arc;
use std::time::Instant;

type Answer<T> = Result<T, Box<dyn Error>>;
/// A loaded model with its input. A call runs one inference and returns a number that depends on
/// the output.
type Run = Box<dyn FnMut() -> Answer<f32>>;

fn main() -> Answer<()> {
    let [peer, model, threads] = arguments()?;
    let began = Instant::now();
    let mut run = match peer.as_str() {
        "tract" => tract(&model, threads.parse()?)?,
        "rten" => rten(&model, threads.parse()?)?,
        other => return Err(format!("{other} is not a peer; use tract or rten").into()),
    };
    let load = microseconds(began);
    let began = Instant::now();
    run()?;
    let first = microseconds(began);
    println!(
        "ready {{\"import_us\": 0, \"load_us\": {load}, \"feed_us\": 0, \"first_us\": {first}, \
         \"bare_bytes\": 0}}"
    );
    for line in std::io::stdin().lock().lines() {
        let mut times = Vec::new();
        for _ in 0..line?.trim().parse::<u32>()? {
            let began = Instant::now();
            std::hint::black_box(run()?);
            times.push(format!("{:.1}", microseconds(began)));
        }
        println!("{}", times.join(" "));
        std::io::stdout().flush()?;
    }
    Ok(())
}

/// Returns the values of `--peer`, `--model` and `--threads`.
fn arguments() -> Answer<[String; 3]> {
    let all: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| {
        let at = all.iter().position(|argument| argument == name);
        at.and_then(|at| all.get(at + 1)).cloned().ok_or(format!("{name} is missing"))
    };
    Ok([value("--peer")?, value("--model")?, value("--threads")?])
}

fn microseconds(began: Instant) -> f64 {
    began.elapsed().as_nanos() as f64 / 1e3
}

/// Returns pseudorandom numbers from -1 to 1.
fn noise(count: usize) -> Vec<f32> {
    let mut state = 1_u32;
    let step = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(step).collect()
}

fn tract(path: &str, threads: usize) -> Answer<Run> {
    use tract_onnx::prelude::*;

    if threads > 1 {
        let executor = tract_linalg::multithread::Executor::multithread(threads);
        tract_linalg::multithread::set_default_executor(executor);
    }
    let model = tract_onnx::onnx().model_for_path(path)?.into_optimized()?;
    let shape =
        model.input_fact(0)?.shape.as_concrete().ok_or("the input shape is dynamic")?.to_vec();
    let plan = model.into_runnable()?;
    let input = Tensor::from_shape(&shape, &noise(shape.iter().product()))?;
    Ok(Box::new(move || {
        let outputs = plan.run(tvec!(input.clone().into()))?;
        Ok(outputs.first().map_or(0, |output| output.len()) as f32)
    }))
}

fn rten(path: &str, threads: usize) -> Answer<Run> {
    use rten::{Dimension, Model, RunOptions, ThreadPool, Value};

    let model = Model::load_file(path)?;
    let fixed = |dim: &Dimension| match dim {
        Dimension::Fixed(size) => *size,
        Dimension::Symbolic(_) => 1,
    };
    let shape: Vec<usize> = model.input_shape(0).ok_or("no shape")?.iter().map(fixed).collect();
    let data = noise(shape.iter().product());
    let input = Value::from_shape(&shape, data)?;
    let id = *model.input_ids().first().ok_or("the model has no input")?;
    let outputs = model.output_ids().to_vec();
    let pool = Arc::new(ThreadPool::with_num_threads(threads));
    let options = RunOptions::default().with_thread_pool(Some(pool));
    Ok(Box::new(move || {
        let outputs = model.run(vec![(id, (&input).into())], &outputs, Some(options.clone()))?;
        Ok(outputs.len() as f32)
    }))
}
