//! The operators, by family.

use crate::call::Operator;

mod attention;
mod binary;
mod cast;
mod control;
mod convolution;
mod detection;
mod generate;
mod image;
mod index;
mod learning;
mod matrix;
mod microsoft;
mod normalize;
mod pad;
mod pool;
mod quantize;
mod recurrent;
mod reduce;
mod reshape;
mod resize;
mod sequence;
mod signal;
mod sort;
#[cfg(test)]
mod tests;
mod text;
mod threads;
mod unary;

/// The families. Each maps a domain and a name to the implementation.
const FAMILIES: [fn(&str, &str) -> Option<Operator>; 25] = [
    attention::find,
    binary::find,
    cast::find,
    control::find,
    convolution::find,
    detection::find,
    generate::find,
    image::find,
    index::find,
    learning::find,
    matrix::find,
    microsoft::find,
    normalize::find,
    pad::find,
    pool::find,
    quantize::find,
    recurrent::find,
    reduce::find,
    reshape::find,
    resize::find,
    sequence::find,
    signal::find,
    sort::find,
    text::find,
    unary::find,
];

/// Returns the implementation of an operator. The standard domain is `""`.
pub(crate) fn find(domain: &str, name: &str) -> Option<Operator> {
    FAMILIES.iter().find_map(|family| family(domain, name))
}

/// Returns why an operator is refused, if it is: its results cannot be reproduced, or it belongs
/// elsewhere. The standard domain is `""`.
pub fn refusal(domain: &str, name: &str) -> Option<&'static str> {
    Some(match (domain, name) {
        ("ai.onnx.preview.training", _) => "it is for training",
        (
            "",
            "Bernoulli" | "Multinomial" | "RandomNormal" | "RandomNormalLike" | "RandomUniform"
            | "RandomUniformLike",
        ) => "its results are random; make them an input of the model",
        ("", "ImageDecoder") => {
            "images are decoded by the bundle's pre-processing; remove the node and give --pre"
        }
        ("", "RegexFullMatch") => "regular expressions are not supported",
        _ => return None,
    })
}

/// Returns whether an operator can be evaluated. The standard domain is `""`.
pub fn is_known(domain: &str, name: &str) -> bool {
    find(domain, name).is_some() && refusal(domain, name).is_none()
}
