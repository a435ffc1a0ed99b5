//! `--set NAME=VALUE`: binds dimensions and inputs before all other rewrites.
//!
//! `NAME` is one of, in this order:
//! - an input: `VALUE` is its shape, such as `1x3x224x224`; `?` leaves a dimension unchanged.
//!   An input with one element, of rank 0 or 1, becomes a constant instead: `sr=16000`
//!   A size for a named dimension binds that name in all inputs
//! - a named dimension: `height=480`
//! - `batch`: all unnamed leading dimensions of inputs
//! - `INPUT_AXIS`, such as `image_2`: any other unnamed dimension of an input
//!
//! Afterwards, all remaining dynamic dimensions have these names.

use std::collections::{HashMap, HashSet};

use hardtack::Tensor;
use hardtack_bundle::DType;
use tract_onnx::pb::tensor_shape_proto::Dimension;
use tract_onnx::pb::tensor_shape_proto::dimension::Value;
use tract_onnx::pb::type_proto::{Tensor as TensorType, Value as TypeValue};
use tract_onnx::pb::{GraphProto, ValueInfoProto};

use super::defaults;
use super::emit::Context;
use crate::import::{ImportError, tensor};

/// The name of unnamed leading dimensions.
const BATCH: &str = "batch";

/// Applies settings in order, then names the remaining dynamic dimensions.
pub(crate) fn bind(
    graph: &mut GraphProto,
    settings: &[(String, String)],
    context: &mut Context,
) -> Result<(), ImportError> {
    defaults::sort(graph, context);
    if !settings.is_empty() {
        graph.value_info.clear();
    }
    let mut open = OpenDimensions::of(graph);
    for (name, value) in settings {
        set(graph, &mut open, name, value, context).map_err(|problem| ImportError::Setting {
            name: name.clone(),
            value: value.clone(),
            problem,
        })?;
    }
    open.bind_expressions(graph);
    name_open_dimensions(graph);
    // A setting may have made an input a constant.
    context.defaults.retain(|(name, _)| graph.input.iter().any(|input| input.name == *name));
    Ok(())
}

/// The dimensions of inputs that have no size in the file.
struct OpenDimensions(Vec<OpenDimension>);

/// A dimension of an input that has no size in the file.
struct OpenDimension {
    input: String,
    axis: usize,
    /// The name in the file, such as `height` or `unk__12`. Dimensions of the same name are equal.
    label: Option<String>,
    /// The name that `--set` and error messages use. `None` for an expression.
    symbol: Option<String>,
    /// The size, and the setting that bound it, such as `--set height=480`.
    bound: Option<(i64, String)>,
}

impl OpenDimensions {
    fn of(graph: &mut GraphProto) -> OpenDimensions {
        let names = plain_names(graph);
        let mut open = Vec::new();
        for input in &mut graph.input {
            let name = input.name.clone();
            for (axis, dim) in dims_of(input).into_iter().flatten().enumerate() {
                if matches!(dim.value, Some(Value::DimValue(0..))) {
                    continue;
                }
                let label = match &dim.value {
                    Some(Value::DimParam(param)) if !matches!(&**param, "" | "?") => {
                        Some(param.clone())
                    }
                    _ => None,
                };
                let symbol = symbol(&name, axis, dim, &names);
                open.push(OpenDimension { input: name.clone(), axis, label, symbol, bound: None });
            }
        }
        OpenDimensions(open)
    }

    /// Binds all dimensions that have a name. Returns whether there are any.
    fn bind_name(
        &mut self,
        graph: &mut GraphProto,
        name: &str,
        value: &str,
    ) -> Result<bool, String> {
        let has_name = |dim: &&OpenDimension| {
            dim.label.as_deref() == Some(name) || dim.symbol.as_deref() == Some(name)
        };
        let found: Vec<(String, usize)> =
            self.0.iter().filter(has_name).map(|dim| (dim.input.clone(), dim.axis)).collect();
        if found.is_empty() {
            return Ok(false);
        }
        let size = size(value)?;
        let setting = format!("--set {name}={value}");
        for (input, axis) in found {
            self.bind(graph, &input, axis, size, &setting)?;
        }
        Ok(true)
    }

    /// Binds one dimension of an input, and all dimensions that have the same name in the file.
    fn bind(
        &mut self,
        graph: &mut GraphProto,
        input: &str,
        axis: usize,
        size: i64,
        setting: &str,
    ) -> Result<(), String> {
        let is_it = |dim: &OpenDimension| dim.input == input && dim.axis == axis;
        let label = self.0.iter().find(|dim| is_it(dim)).and_then(|dim| dim.label.clone());
        for dim in &mut self.0 {
            if !is_it(dim) && (label.is_none() || dim.label != label) {
                continue;
            }
            match &dim.bound {
                Some((other, earlier)) if *other != size => {
                    let named = dim.label.iter().chain(&dim.symbol).next();
                    let named = named.map_or(String::new(), |name| format!(" ({name})"));
                    let by = match earlier == setting {
                        true => "in the same option".into(),
                        false => format!("by {earlier}"),
                    };
                    return Err(format!(
                        "dimension {}{named} of input {:?} is bound to {other} {by} and cannot be \
                         {size} too; give both the same size",
                        dim.axis, dim.input
                    ));
                }
                _ => dim.bound = Some((size, setting.into())),
            }
            let input = graph.input.iter_mut().find(|input| input.name == dim.input);
            if let Some(dim) = input.and_then(dims_of).and_then(|dims| dims.get_mut(dim.axis)) {
                dim.value = Some(Value::DimValue(size));
            }
        }
        Ok(())
    }

    /// Replaces bound names in expressions, such as `past + 1`, by their sizes.
    fn bind_expressions(&self, graph: &mut GraphProto) {
        let sizes: HashMap<&str, i64> = self
            .0
            .iter()
            .filter_map(|dim| Some((dim.label.as_deref()?, dim.bound.as_ref()?.0)))
            .collect();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        for dim in graph.input.iter_mut().filter_map(dims_of).flatten() {
            let Some(Value::DimParam(param)) = &mut dim.value else { continue };
            let mut replaced = String::new();
            let mut rest = &param[..];
            while !rest.is_empty() {
                let end = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
                // A separator is a part of its own.
                let end = end.max(rest.chars().next().map_or(1, char::len_utf8));
                let (part, after) = rest.split_at(end);
                match sizes.get(part) {
                    Some(size) => replaced += &size.to_string(),
                    None => replaced += part,
                }
                rest = after;
            }
            *param = replaced;
        }
    }
}

fn set(
    graph: &mut GraphProto,
    open: &mut OpenDimensions,
    name: &str,
    value: &str,
    context: &mut Context,
) -> Result<(), String> {
    if let Some(index) = graph.input.iter().position(|input| input.name == name) {
        let dims = dims_of(&mut graph.input[index]).map(|dims| dims.clone());
        let single = dims.is_some_and(|dims| {
            dims.iter().all(|dim| matches!(dim.value, Some(Value::DimValue(1)))) && dims.len() < 2
        });
        return if single {
            set_value(graph, index, value, context)
        } else {
            set_shape(graph, open, index, value)
        };
    }
    if open.bind_name(graph, name, value)? {
        Ok(())
    } else {
        Err(format!("no input or dimension has this name; {}", what_can_be_set(graph)))
    }
}

/// Replaces an input of one element by a constant.
fn set_value(
    graph: &mut GraphProto,
    index: usize,
    value: &str,
    context: &mut Context,
) -> Result<(), String> {
    let input = &mut graph.input[index];
    let shape: Vec<usize> = dims_of(input).map_or_else(Vec::new, |dims| vec![1; dims.len()]);
    let number = tensor_type(input).map_or(0, |of| of.elem_type);
    let dtype = tensor::dtype_of(number).ok_or("the input is not numeric")?;
    let wrong = || format!("the input has type {dtype}, and {value:?} is not a value of it");
    macro_rules! parse {
        ($type:ty) => {
            Tensor::scalar(value.parse::<$type>().map_err(|_| wrong())?)
        };
    }
    let scalar = match dtype {
        DType::Bool => match value {
            "true" | "1" => Tensor::scalar(true),
            "false" | "0" => Tensor::scalar(false),
            _ => return Err(wrong()),
        },
        DType::I8 => parse!(i8),
        DType::U8 => parse!(u8),
        DType::I16 => parse!(i16),
        DType::U16 => parse!(u16),
        DType::I32 => parse!(i32),
        DType::U32 => parse!(u32),
        DType::I64 => parse!(i64),
        DType::U64 => parse!(u64),
        DType::F32 => parse!(f32),
        DType::F64 => parse!(f64),
        DType::F16 | DType::BF16 | DType::Dim => {
            return Err(format!("inputs of type {dtype} cannot be set"));
        }
    };
    let name = graph.input.remove(index).name;
    let constant = scalar.reshape(&shape).map_err(|_| wrong())?;
    graph.initializer.push(tensor::store(&name, &constant));
    context.note(format!("input {name:?} is the constant {value}"));
    Ok(())
}

fn set_shape(
    graph: &mut GraphProto,
    open: &mut OpenDimensions,
    index: usize,
    value: &str,
) -> Result<(), String> {
    let input = &mut graph.input[index];
    let name = input.name.clone();
    let sizes: Vec<&str> = value.split('x').collect();
    let Some(of) = tensor_type(input) else { return Err("the input is not a tensor".into()) };
    let dims = &mut of.shape.get_or_insert_default().dim;
    if dims.is_empty() {
        dims.resize(sizes.len(), Dimension::default());
    }
    if dims.len() != sizes.len() {
        return Err(format!(
            "the input has {} dimensions; give a size for each, such as {}",
            dims.len(),
            shape_text(dims)
        ));
    }
    let dims = dims.clone();
    let setting = format!("--set {name}={value}");
    for (axis, (dim, text)) in dims.iter().zip(sizes).enumerate() {
        if text == "?" {
            continue;
        }
        let size = size(text)?;
        let is_open = open.0.iter().any(|dim| dim.input == name && dim.axis == axis);
        match dim.value {
            Some(Value::DimValue(fixed)) if fixed > 0 && fixed != size && !is_open => {
                return Err(format!("a dimension is fixed to {fixed} and cannot be {size}"));
            }
            _ if is_open => open.bind(graph, &name, axis, size, &setting)?,
            _ => {
                let dims = dims_of(&mut graph.input[index]);
                if let Some(dim) = dims.and_then(|dims| dims.get_mut(axis)) {
                    dim.value = Some(Value::DimValue(size));
                }
            }
        }
    }
    Ok(())
}

fn size(text: &str) -> Result<i64, String> {
    match text.parse() {
        Ok(size @ 1..=0x7fff_ffff) => Ok(size),
        _ => Err(format!("{text:?} is not a valid dimension size")),
    }
}

fn what_can_be_set(graph: &mut GraphProto) -> String {
    let mut all = Vec::new();
    let mut nameless = false;
    for input in &mut graph.input {
        let name = input.name.clone();
        let Some(dims) = dims_of(input) else { continue };
        nameless |= dims.first().is_some_and(is_nameless);
        if dims.iter().any(|dim| !matches!(dim.value, Some(Value::DimValue(1..)))) {
            all.push(format!("{name}={}", shape_text(dims)));
        } else if dims.is_empty() {
            all.push(format!("{name}=NUMBER"));
        }
        for dim in dims {
            if let (false, Some(Value::DimParam(param))) = (is_nameless(dim), &dim.value) {
                all.push(format!("{param}=SIZE"));
            }
        }
    }
    if nameless {
        all.push(format!("{BATCH}=SIZE"));
    }
    all.dedup();
    if all.is_empty() {
        "the model has nothing that can be set".into()
    } else {
        format!("valid settings: {}", all.join(", "))
    }
}

fn shape_text(dims: &[Dimension]) -> String {
    let dims: Vec<String> = dims
        .iter()
        .map(|dim| match &dim.value {
            Some(Value::DimValue(size @ 1..)) => size.to_string(),
            _ => "?".into(),
        })
        .collect();
    dims.join("x")
}

fn name_open_dimensions(graph: &mut GraphProto) {
    let names = plain_names(graph);
    for input in &mut graph.input {
        let name = input.name.clone();
        let Some(dims) = dims_of(input) else { continue };
        for (axis, dim) in dims.iter_mut().enumerate() {
            if let Some(symbol) = symbol(&name, axis, dim, &names) {
                dim.value = Some(Value::DimParam(symbol));
            }
        }
    }
}

/// Returns the name of a dynamic dimension of an input. `None` if it has a size or an expression.
///
/// `names` are the names of dimensions: `past + 1` is an expression if `past` is one of them, and
/// `batch-size` is a name if neither of its parts is.
fn symbol(input: &str, axis: usize, dim: &Dimension, names: &HashSet<String>) -> Option<String> {
    if is_nameless(dim) {
        return Some(if axis == 0 {
            BATCH.into()
        } else {
            format!("{}_{axis}", identifier(input))
        });
    }
    match &dim.value {
        Some(Value::DimParam(param)) if !is_expression(param, names) => Some(identifier(param)),
        _ => None,
    }
}

const OPERATORS: [char; 6] = ['+', '-', '*', '/', '(', ')'];

/// Returns whether the name of a dimension is an expression of other names.
fn is_expression(param: &str, names: &HashSet<String>) -> bool {
    let is_number = |part: &str| part.parse::<i64>().is_ok();
    let parts = || param.split(OPERATORS).map(str::trim).filter(|part| !part.is_empty());
    param.contains(OPERATORS)
        && (parts().any(|part| names.contains(part)) || parts().all(is_number))
}

/// Returns the names of dimensions that are no expressions.
fn plain_names(graph: &mut GraphProto) -> HashSet<String> {
    let dims = graph.input.iter_mut().filter_map(dims_of).flatten();
    dims.filter_map(|dim| match &dim.value {
        Some(Value::DimParam(param)) if !param.contains(OPERATORS) => Some(param.clone()),
        _ => None,
    })
    .collect()
}

/// Replaces all characters of a name that could be misread in a dimension expression.
fn identifier(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' };
    let mut identifier: String = name.chars().map(plain).collect();
    if !identifier.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        identifier.insert(0, '_');
    }
    identifier
}

/// Returns whether a dimension has neither a size nor a meaningful name.
fn is_nameless(dim: &Dimension) -> bool {
    match &dim.value {
        None => true,
        Some(Value::DimValue(size)) => *size < 0,
        Some(Value::DimParam(param)) => {
            param.is_empty() || param == "?" || param.starts_with("unk__")
        }
    }
}

fn tensor_type(input: &mut ValueInfoProto) -> Option<&mut TensorType> {
    let TypeValue::TensorType(of) = input.r#type.as_mut()?.value.as_mut()?;
    Some(of)
}

fn dims_of(input: &mut ValueInfoProto) -> Option<&mut Vec<Dimension>> {
    Some(&mut tensor_type(input)?.shape.as_mut()?.dim)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{context, input};
    use super::*;

    fn graph() -> GraphProto {
        GraphProto {
            input: vec![
                input("x", DType::F32, &["unk__7", "height", "3"]),
                input("y", DType::F32, &["", "height", "?"]),
                input("sr", DType::I64, &[]),
            ],
            ..GraphProto::default()
        }
    }

    fn bound(settings: &[(&str, &str)]) -> Result<GraphProto, String> {
        let mut graph = graph();
        let settings: Vec<(String, String)> =
            settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        bind(&mut graph, &settings, &mut context()).map_err(|error| error.to_string())?;
        Ok(graph)
    }

    fn shapes(mut graph: GraphProto) -> Vec<String> {
        let text = |dim: &Dimension| match &dim.value {
            Some(Value::DimValue(size)) => size.to_string(),
            Some(Value::DimParam(name)) => name.clone(),
            None => "?".into(),
        };
        let shape = |input: &mut ValueInfoProto| {
            dims_of(input).unwrap().iter().map(text).collect::<Vec<_>>().join(" ")
        };
        graph.input.iter_mut().map(shape).collect()
    }

    #[test]
    fn dynamic_dimensions_get_names() {
        assert_eq!(shapes(bound(&[]).unwrap()), ["batch height 3", "batch height y_2", ""]);
    }

    #[test]
    fn dimensions_and_inputs_are_set() {
        let graph = bound(&[("batch", "2"), ("height", "40"), ("y", "?x?x5"), ("sr", "16000")]);
        let graph = graph.unwrap();
        assert_eq!(tensor::load(&graph.initializer[0]), Some(Tensor::scalar(16000i64)));
        assert_eq!(shapes(graph), ["2 40 3", "2 40 5"]);
        assert_eq!(
            shapes(bound(&[("y_2", "7")]).unwrap()),
            ["batch height 3", "batch height 7", ""]
        );
    }

    /// Binds inputs of the same dimension names.
    fn named(settings: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let mut graph = GraphProto {
            input: vec![
                input("ids", DType::I64, &["batch_size", "seq"]),
                input("mask", DType::I64, &["batch_size", "seq"]),
                input("past", DType::F32, &["batch_size", "4", "seq + 1"]),
                input("a", DType::F32, &["unk__7", "unk__12", ""]),
                input("b", DType::F32, &["unk__8", "unk__12", ""]),
            ],
            ..GraphProto::default()
        };
        let settings: Vec<(String, String)> =
            settings.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        bind(&mut graph, &settings, &mut context()).map_err(|error| error.to_string())?;
        Ok(shapes(graph))
    }

    #[test]
    fn the_shape_of_an_input_binds_its_names_in_all_inputs() {
        assert_eq!(
            named(&[("ids", "1x512")]).unwrap(),
            ["1 512", "1 512", "1 4 512 + 1", "batch a_1 a_2", "batch b_1 b_2"]
        );
        // The sizes of unnamed dimensions of other inputs are not known to be equal.
        for settings in [&[("b", "2x3x5")][..], &[("b", "?x3x5"), ("unk__8", "2")]] {
            assert_eq!(
                named(settings).unwrap()[3..],
                ["batch 3 a_2", "2 3 5"].map(String::from),
                "{settings:?}"
            );
        }
        assert_eq!(named(&[("a_1", "3")]).unwrap()[3..], ["batch 3 a_2", "batch 3 b_2"]);
        // The same size again is no contradiction.
        named(&[("ids", "1x512"), ("seq", "512"), ("mask", "?x512"), ("ids", "1x512")]).unwrap();
    }

    #[test]
    fn contradicting_sizes_are_one_error() {
        for (settings, problem) in [
            (
                &[("ids", "1x512"), ("mask", "1x256")][..],
                "--set mask=1x256: dimension 1 (seq) of input \"ids\" is bound to 512 by --set \
                 ids=1x512 and cannot be 256 too; give both the same size",
            ),
            (&[("seq", "8"), ("ids", "1x512")], "is bound to 8 by --set seq=8 and cannot be 512"),
            (&[("ids", "1x512"), ("seq", "8")], "--set seq=8: dimension 1 (seq) of input \"ids\""),
            (&[("batch", "2"), ("a", "1x1x1")], "(unk__7) of input \"a\" is bound to 2"),
        ] {
            let message = named(settings).unwrap_err();
            assert!(message.contains(problem), "{message}");
        }
    }

    #[test]
    fn errors_list_what_can_be_set() {
        for (setting, problem) in [
            (("hight", "2"), "valid settings: x=?x?x3, height=SIZE, y=?x?x?"),
            (("x", "1x2"), "the input has 3 dimensions; give a size for each, such as ?x?x3"),
            (("x", "1x2x4"), "a dimension is fixed to 3 and cannot be 4"),
            (("sr", "fast"), "the input has type i64, and \"fast\" is not a value of it"),
            (("batch", "0"), "\"0\" is not a valid dimension size"),
        ] {
            let message = bound(&[setting]).unwrap_err();
            assert!(message.contains(problem), "{message}");
        }
    }
}
