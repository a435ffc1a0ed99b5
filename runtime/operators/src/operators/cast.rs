//! Operators that convert the elements of a tensor to another type.

use std::fmt::Display;

use half::{bf16, f16};

use crate::call::{Call, Operator};
use crate::element_type::ElementType;
use crate::error::Problem;
use crate::meter;
use crate::narrow::{self, Rounding};
use crate::tensor::{Data, Tensor};
use crate::value::Value;

/// Returns the implementation of an operator of this family.
pub(super) fn find(domain: &str, name: &str) -> Option<Operator> {
    Some(match (domain, name) {
        ("", "BitCast") => bit_cast,
        ("", "Cast") => cast,
        ("", "CastLike") => cast_like,
        _ => return None,
    })
}

/// Converts the elements of a tensor to the type with the number `to`.
fn cast(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    convert(call, target(call)?)
}

/// Converts the elements of a tensor to the type of another tensor.
fn cast_like(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    convert(call, call.tensor(1)?.element())
}

/// Returns the type that the attribute `to` names.
fn target(call: &Call<'_>) -> Result<ElementType, Problem> {
    let number = call.int("to")?.ok_or(Problem::MissingAttribute { name: "to" })?;
    ElementType::from_number(number).ok_or_else(|| Problem::AttributeValue {
        name: "to",
        value: number.to_string(),
        accepted: "the number of an element type",
    })
}

fn convert(call: &Call<'_>, element: ElementType) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    if x.element() == element {
        return Ok(vec![call.value(0)?.clone()]);
    }
    let narrowing = Narrowing::of(call, element)?;
    let shape = x.shape().to_vec();
    let result = match x.data() {
        _ if element == ElementType::Text => Tensor::new(shape, texts(x)?)?,
        Data::Text(texts) if element.is_integer() => {
            let integers =
                texts.iter().map(|text| parse_integer(text)).collect::<Result<_, _>>()?;
            Tensor::from_i128(element, shape, integers)?
        }
        Data::Text(texts) => {
            let numbers = texts.iter().map(|text| parse_float(text, element));
            from_floats(element, shape, numbers.collect::<Result<_, _>>()?, &narrowing)?
        }
        _ if x.element().is_float() => from_floats(element, shape, x.to_f64()?, &narrowing)?,
        _ if element.is_float() && element != ElementType::F64 => {
            let numbers = x.to_i128()?.into_iter().map(sticky).collect();
            from_floats(element, shape, numbers, &narrowing)?
        }
        _ => Tensor::from_i128(element, shape, x.to_i128()?)?,
    };
    Ok(vec![result.into()])
}

/// How numbers become floats of 8 bits.
pub(super) struct Narrowing {
    saturate: bool,
    rounding: Rounding,
    /// Whether infinity becomes `NaN` in the `FNUZ` types even if `saturate` holds.
    infinity_is_nan: bool,
}

impl Narrowing {
    /// Reads the attributes of a call that converts to a type.
    pub(super) fn of(call: &Call<'_>, element: ElementType) -> Result<Self, Problem> {
        let rounding = match call.text("round_mode")? {
            _ if element != ElementType::F8E8M0 => Rounding::Nearest,
            None | Some("up") => Rounding::Up,
            Some("down") => Rounding::Down,
            Some("nearest") => Rounding::Nearest,
            Some(other) => {
                return Err(Problem::AttributeValue {
                    name: "round_mode",
                    value: other.into(),
                    accepted: "\"up\", \"down\" or \"nearest\"",
                });
            }
        };
        let saturate = call.flag("saturate", true)?;
        Ok(Self { saturate, rounding, infinity_is_nan: call.version < 24 })
    }

    /// Returns the code of a number in a type of 8 or 4 bits.
    pub(super) fn encode(&self, element: ElementType, value: f64) -> u8 {
        match element {
            ElementType::F8E8M0 => narrow::encode_power(value, self.saturate, self.rounding),
            ElementType::F8E4M3FNUZ | ElementType::F8E5M2FNUZ
                if self.infinity_is_nan && value.is_infinite() =>
            {
                narrow::encode(element, value, false)
            }
            _ => narrow::encode(element, value, self.saturate),
        }
    }
}

/// Creates a tensor of a type from floats, each rounded once.
fn from_floats(
    element: ElementType,
    shape: Vec<usize>,
    values: Vec<f64>,
    narrowing: &Narrowing,
) -> Result<Tensor, Problem> {
    if element.is_narrow_float() {
        let codes = values.into_iter().map(|value| narrowing.encode(element, value)).collect();
        return Tensor::with_type(element, shape, Data::U8(codes));
    }
    let rounded = values.into_iter().map(|value| narrow::nearest(element, value)).collect();
    Tensor::from_f64(element, shape, rounded)
}

/// Returns an integer as a float that rounds to any narrower type like the integer itself: an
/// inexact one is rounded toward zero, and its last bit is set.
fn sticky(value: i128) -> f64 {
    let nearest = value as f64;
    if nearest as i128 == value {
        return nearest;
    }
    let beyond = (nearest as i128).unsigned_abs() > value.unsigned_abs();
    f64::from_bits((nearest.to_bits() - u64::from(beyond)) | 1)
}

/// Returns the elements as strings: the shortest decimal numbers that mean them, without exponent.
fn texts(x: &Tensor) -> Result<Vec<String>, Problem> {
    fn plain(value: impl Display) -> String {
        match value.to_string() {
            infinity if infinity.ends_with("inf") => infinity.to_uppercase(),
            text => text,
        }
    }
    let longest = if x.element() == ElementType::F64 { 350 } else { 50 };
    meter::check_text(x.len().saturating_mul(longest))?;
    Ok(match x.data() {
        Data::F32(values) => values.iter().map(plain).collect(),
        Data::F16(values) => values.iter().copied().map(f16::to_f32).map(plain).collect(),
        Data::BF16(values) => values.iter().copied().map(bf16::to_f32).map(plain).collect(),
        _ if x.element().is_float() => x.to_f64()?.iter().map(plain).collect(),
        _ => x.to_i128()?.iter().map(plain).collect(),
    })
}

fn not_a_number(text: &str, kind: &str) -> Problem {
    Problem::Invalid(format!("the string {text:?} cannot be cast; it must be {kind}"))
}

/// Returns the number that a string means, rounded to `f32` if that is the type it is cast to.
fn parse_float(text: &str, element: ElementType) -> Result<f64, Problem> {
    let trimmed = text.trim();
    let number = match element {
        ElementType::F32 => trimmed.parse::<f32>().map(f64::from),
        _ => trimmed.parse::<f64>(),
    };
    number.map_err(|_| not_a_number(text, "a number"))
}

/// Returns the integer that a string means. A fraction is cut off.
fn parse_integer(text: &str) -> Result<i128, Problem> {
    if let Ok(integer) = text.trim().parse() {
        return Ok(integer);
    }
    match parse_float(text, ElementType::F64)? {
        number if number.is_finite() => Ok(number as i128),
        _ => Err(not_a_number(text, "a finite number")),
    }
}

/// Reinterprets the bits of each element as another type of the same size.
fn bit_cast(call: &Call<'_>) -> Result<Vec<Value>, Problem> {
    let x = call.tensor(0)?;
    let element = target(call)?;
    let bits = match (x.element().bits(), element.bits()) {
        (Some(from), Some(to)) if from == to => to,
        _ => {
            return Err(Problem::Invalid(format!(
                "the bits of {} cannot be those of {element}; the types must have the same size",
                x.element()
            )));
        }
    };
    let mask = u128::MAX >> 128usize.saturating_sub(bits).min(127);
    let codes = codes(x.data())?.into_iter().map(|code| code & mask);
    let shape = x.shape().to_vec();
    let data = match element {
        ElementType::F32 => Data::F32(codes.map(|v| f32::from_bits(v as u32)).collect()),
        ElementType::F64 => Data::F64(codes.map(|v| f64::from_bits(v as u64)).collect()),
        ElementType::F16 => Data::F16(codes.map(|v| f16::from_bits(v as u16)).collect()),
        ElementType::BF16 => Data::BF16(codes.map(|v| bf16::from_bits(v as u16)).collect()),
        ElementType::Complex64 => {
            let part = |v: u128, shift| f32::from_bits((v >> shift) as u32);
            Data::Complex64(codes.map(|v| [part(v, 0), part(v, 32)]).collect())
        }
        ElementType::Complex128 => {
            let part = |v: u128, shift| f64::from_bits((v >> shift) as u64);
            Data::Complex128(codes.map(|v| [part(v, 0), part(v, 64)]).collect())
        }
        narrow if narrow.is_narrow_float() => Data::U8(codes.map(|v| v as u8).collect()),
        _ => {
            let integers = codes.map(|v| v as i128).collect();
            return Ok(vec![Tensor::from_i128(element, shape, integers)?.into()]);
        }
    };
    Ok(vec![Tensor::with_type(element, shape, data)?.into()])
}

/// Returns the bits of the elements. The real part of a complex number is in the low bits.
fn codes(data: &Data) -> Result<Vec<u128>, Problem> {
    let join = |real: u64, imaginary: u64, shift| u128::from(real) | u128::from(imaginary) << shift;
    Ok(match data {
        Data::F32(values) => values.iter().map(|v| u128::from(v.to_bits())).collect(),
        Data::F64(values) => values.iter().map(|v| u128::from(v.to_bits())).collect(),
        Data::F16(values) => values.iter().map(|v| u128::from(v.to_bits())).collect(),
        Data::BF16(values) => values.iter().map(|v| u128::from(v.to_bits())).collect(),
        Data::I8(values) => values.iter().map(|v| *v as u128).collect(),
        Data::I16(values) => values.iter().map(|v| *v as u128).collect(),
        Data::I32(values) => values.iter().map(|v| *v as u128).collect(),
        Data::I64(values) => values.iter().map(|v| *v as u128).collect(),
        Data::U8(values) => values.iter().map(|v| u128::from(*v)).collect(),
        Data::U16(values) => values.iter().map(|v| u128::from(*v)).collect(),
        Data::U32(values) => values.iter().map(|v| u128::from(*v)).collect(),
        Data::U64(values) => values.iter().map(|v| u128::from(*v)).collect(),
        Data::Bool(values) => values.iter().map(|v| u128::from(*v)).collect(),
        Data::Complex64(values) => {
            let bits = |v: f32| u64::from(v.to_bits());
            values.iter().map(|[real, imaginary]| join(bits(*real), bits(*imaginary), 32)).collect()
        }
        Data::Complex128(values) => {
            let join = |[real, imaginary]: &[f64; 2]| join(real.to_bits(), imaginary.to_bits(), 64);
            values.iter().map(join).collect()
        }
        Data::Text(_) => {
            let (found, accepted) = (ElementType::Text, "any type but string");
            return Err(Problem::InputType { index: 0, found, accepted });
        }
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::evaluate::NoObserver;
    use crate::model::{Attribute, Graph, Model, Node, ValueInfo};

    /// Evaluates a model of one node with one output.
    pub(in crate::operators) fn run(
        operator: &str,
        version: i64,
        inputs: &[Tensor],
        attributes: &[(&str, Attribute)],
    ) -> Result<Tensor, Problem> {
        let names: Vec<String> = (0..inputs.len()).map(|index| format!("x{index}")).collect();
        let attributes = attributes.iter().map(|(name, value)| (name.to_string(), value.clone()));
        let node = Node {
            operator: operator.into(),
            inputs: names.clone(),
            outputs: vec!["y".into()],
            attributes: attributes.collect(),
            ..Node::default()
        };
        let outputs = vec![ValueInfo { name: "y".into(), value_type: None }];
        let mut graph = Graph { nodes: vec![node], outputs, ..Graph::default() };
        graph.prepare();
        let opsets = HashMap::from([(String::new(), version)]);
        let model = Model { opsets, graph, ..Model::default() };
        let inputs = names.into_iter().zip(inputs.iter().cloned().map(Value::from)).collect();
        let outputs = model.run(inputs, &mut NoObserver).map_err(|error| error.problem)?;
        outputs[0].tensor().cloned()
    }

    fn cast(x: Tensor, to: ElementType, version: i64) -> Result<Tensor, Problem> {
        run("Cast", version, &[x], &[("to", Attribute::Int(to.number().into()))])
    }

    #[test]
    fn integers_are_rounded_once() {
        // Rounding to float64 first makes ties of these.
        let value = (1i64 << 60) + (1 << 52) + 1;
        let result = cast(Tensor::vector(vec![value, -value]), ElementType::BF16, 13).unwrap();
        let expected = ((1u64 << 60) + (1 << 53)) as f64;
        assert_eq!(result.to_f64().unwrap(), [expected, -expected]);
        let value = (1i64 << 60) + (1 << 36) + 1;
        let result = cast(Tensor::vector(vec![value, -value]), ElementType::F32, 13).unwrap();
        assert_eq!(result.slice::<f32>().unwrap(), [value as f32, -value as f32]);
        let result = cast(Tensor::vector(vec![u64::MAX]), ElementType::F64, 13).unwrap();
        assert_eq!(result.slice::<f64>().unwrap(), [18446744073709551616.0]);
    }

    #[test]
    fn strings_hold_numbers() {
        let texts = |texts: &[&str]| Tensor::vector(texts.iter().map(|t| t.to_string()).collect());
        let x = texts(&["+INF", "-inf", " 1e-5", "2.5"]);
        let floats = cast(x, ElementType::F32, 9).unwrap();
        assert_eq!(floats.slice::<f32>().unwrap(), [f32::INFINITY, -f32::INFINITY, 1e-5, 2.5]);
        let x = texts(&["100.5", "18446744073709551615", "1E3"]);
        let integers = cast(x, ElementType::U64, 9).unwrap();
        assert_eq!(integers.slice::<u64>().unwrap(), [100, u64::MAX, 1000]);
        assert!(cast(texts(&["Hello World!"]), ElementType::F32, 9).is_err());
        assert!(cast(texts(&["nan"]), ElementType::I32, 9).is_err());
        let x = Tensor::vector(vec![314.15926f32, 1e20, -0.0, f32::NAN, f32::NEG_INFINITY]);
        let expected = texts(&["314.15927", "100000000000000000000", "-0", "NaN", "-INF"]);
        assert_eq!(cast(x, ElementType::Text, 9).unwrap(), expected);
        let x = Tensor::vector(vec![true, false]);
        assert_eq!(cast(x, ElementType::Text, 9).unwrap(), texts(&["1", "0"]));
    }

    #[test]
    fn infinity_depends_on_the_version_in_some_types() {
        let codes = |version| {
            let x = Tensor::vector(vec![f32::INFINITY, f32::NEG_INFINITY, 1e9]);
            cast(x, ElementType::F8E5M2FNUZ, version).unwrap().data().clone()
        };
        assert_eq!(codes(19), Data::U8(vec![0x80, 0x80, 0x7F]));
        assert_eq!(codes(24), Data::U8(vec![0x7F, 0xFF, 0x7F]));
    }

    #[test]
    fn bits_keep_their_values() {
        let cast = |x: Tensor, to: ElementType| {
            run("BitCast", 26, &[x], &[("to", Attribute::Int(to.number().into()))])
        };
        let x = Tensor::vector(vec![-0.0f32, 1.0]);
        let bits = cast(x.clone(), ElementType::U32).unwrap();
        assert_eq!(bits.slice::<u32>().unwrap(), [0x8000_0000, 0x3F80_0000]);
        assert_eq!(cast(bits, ElementType::F32).unwrap(), x);
        let x = Tensor::with_type(ElementType::I4, vec![2], Data::I8(vec![-8, 7])).unwrap();
        let narrow = cast(x.clone(), ElementType::F4E2M1).unwrap();
        assert_eq!(narrow.to_f64().unwrap(), [-0.0, 6.0]);
        assert_eq!(cast(narrow, ElementType::I4).unwrap(), x);
        let x = Tensor::vector(vec![[1.0f32, -2.0]]);
        let bits = cast(x.clone(), ElementType::U64).unwrap();
        assert_eq!(bits.slice::<u64>().unwrap(), [0xC000_0000_3F80_0000]);
        assert_eq!(cast(bits, ElementType::Complex64).unwrap(), x);
        assert!(cast(x, ElementType::F32).is_err());
        let x = Tensor::vector(vec![[0.5f64, 3.0]]);
        assert_eq!(cast(x.clone(), ElementType::Complex128).unwrap(), x);
    }
}
