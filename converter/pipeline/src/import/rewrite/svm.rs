//! Rewrites support vector regression as matmuls.

use hardtack::Tensor;
use hardtack_bundle::DType;
use tract_onnx::pb::NodeProto;

use super::emit::Emit;
use super::scores::{Transform, input, output};
use crate::import::ImportError;
use crate::import::node::Node;

/// Rewrites SVMRegressor as `kernel(x, support vectors) · coefficients + rho`.
pub(crate) fn regressor(node: &NodeProto, emit: &mut Emit<'_>) -> Result<(), ImportError> {
    let supports = node.int("n_supports").unwrap_or(0);
    let rho = node.floats("rho").first().copied().unwrap_or(0.0);
    if node.int("one_class").unwrap_or(0) != 0 {
        return Err(node.wrong("one_class=1 is not supported"));
    }
    let x = emit.cast(input(node)?, DType::F32);
    let y = if supports > 0 {
        let vectors = node.floats("support_vectors").to_vec();
        let rows = supports as usize;
        if !vectors.len().is_multiple_of(rows) || node.floats("coefficients").len() != rows {
            return Err(
                node.wrong("the numbers of its support vectors and coefficients do not match")
            );
        }
        let columns = vectors.len() / rows;
        let similar = kernel(node, emit, &x, &vectors, [rows, columns])?;
        let coefficients = Tensor::new(&[rows, 1], node.floats("coefficients").to_vec());
        let coefficients = emit.constant("coefficients", &coefficients.expect("checked length"));
        emit.node("MatMul", &[&similar, &coefficients], vec![])
    } else {
        let coefficients = node.floats("coefficients").to_vec();
        let coefficients = Tensor::new(&[coefficients.len(), 1], coefficients);
        let coefficients = emit.constant("coefficients", &coefficients.expect("its own length"));
        emit.node("MatMul", &[&x, &coefficients], vec![])
    };
    let rho = emit.constant("rho", &Tensor::scalar(rho));
    let y = emit.node("Add", &[&y, &rho], vec![]);
    Transform::of(node)?.last(node, emit, &y, output(node)?)
}

/// Emits the kernel function of each row of `x` and each support vector.
fn kernel(
    node: &NodeProto,
    emit: &mut Emit<'_>,
    x: &str,
    vectors: &[f32],
    [rows, columns]: [usize; 2],
) -> Result<String, ImportError> {
    let parameters = node.floats("kernel_params");
    let parameter = |index: usize| parameters.get(index).copied().unwrap_or(0.0);
    let (gamma, coefficient, degree) = (parameter(0), parameter(1), parameter(2));
    let mut transposed = vec![0f32; vectors.len()];
    for row in 0..rows {
        for column in 0..columns {
            transposed[column * rows + row] = vectors[row * columns + column];
        }
    }
    let transposed = Tensor::new(&[columns, rows], transposed).expect("as many as before");
    let transposed = emit.constant("support_vectors", &transposed);
    let product = emit.node("MatMul", &[x, &transposed], vec![]);
    let scaled = |emit: &mut Emit<'_>| {
        let gamma = emit.constant("gamma", &Tensor::scalar(gamma));
        let product = emit.node("Mul", &[&product, &gamma], vec![]);
        let coefficient = emit.constant("coefficient", &Tensor::scalar(coefficient));
        emit.node("Add", &[&product, &coefficient], vec![])
    };
    Ok(match node.text("kernel_type").unwrap_or("LINEAR") {
        "LINEAR" => product,
        "POLY" => {
            let base = scaled(emit);
            let degree = emit.constant("degree", &Tensor::scalar(degree));
            emit.node("Pow", &[&base, &degree], vec![])
        }
        "SIGMOID" => {
            let inner = scaled(emit);
            emit.node("Tanh", &[&inner], vec![])
        }
        "RBF" => {
            // |x - v|² = |x|² - 2 x·v + |v|²
            let square = emit.node("Mul", &[x, x], vec![]);
            let square = emit.reduce("ReduceSum", &square, &[-1]);
            let own: Vec<f32> =
                vectors.chunks(columns.max(1)).map(|row| row.iter().map(|v| v * v).sum()).collect();
            let own = emit.vector("squares", own);
            let sum = emit.node("Add", &[&square, &own], vec![]);
            let two = emit.constant("two", &Tensor::scalar(2f32));
            let twice = emit.node("Mul", &[&product, &two], vec![]);
            let distance = emit.node("Sub", &[&sum, &twice], vec![]);
            let gamma = emit.constant("gamma", &Tensor::scalar(-gamma));
            let exponent = emit.node("Mul", &[&distance, &gamma], vec![]);
            emit.node("Exp", &[&exponent], vec![])
        }
        other => return Err(node.wrong(format!("kernel_type {other} is not known"))),
    })
}
