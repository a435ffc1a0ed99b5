//! Tests of the judgement of outputs.

use super::*;

fn outputs(samples: &[&[f32]]) -> Vec<Vec<Tensor>> {
    let tensor = |x: &&[f32]| vec![Tensor::new(&[1, x.len()], x.to_vec()).unwrap()];
    samples.iter().map(tensor).collect()
}

#[test]
fn errors_are_relative_to_the_output() {
    let error = relative_error;
    let float = outputs(&[&[3.0, 4.0], &[-3.0, f32::NEG_INFINITY]]);
    let other = outputs(&[&[3.0, 4.5], &[-3.0, -9.0]]);
    assert!((error(&float, &other) - 0.5 / 18f64.sqrt()).abs() < 1e-6);
    assert_eq!(error(&float, &float), 0.0);
    let nothing = outputs(&[&[0.0, 0.0]]);
    assert_eq!(error(&nothing, &nothing), 0.0);
    assert!(error(&nothing, &outputs(&[&[0.0, 1e-3]])) > 1e6);
    let wrong = outputs(&[&[f32::NAN, 4.0], &[0.0, 0.0]]);
    assert_eq!(error(&float, &wrong), f64::INFINITY);
}

#[test]
fn columns_that_dominate_are_judged_apart() {
    // Boxes in pixels and scores, as `[1, values, places]` and `[1, places, values]`.
    let (values, places) = (5, 30);
    let element = |value: usize, place: usize, sample: usize| {
        let x = ((value * 31 + place * 17 + sample * 41) % 97) as f32 / 97.0;
        if value < 2 { 300.0 * x } else { x }
    };
    for last in [false, true] {
        let make = |wrong: f32| -> Vec<Vec<Tensor>> {
            let sample = |sample: usize| {
                let shape = if last { [1, places, values] } else { [1, values, places] };
                let at = |index: usize| match last {
                    true => (index % values, index / values),
                    false => (index / places, index % places),
                };
                let elements = (0..values * places).map(|index| {
                    let (value, place) = at(index);
                    let error = if value < 2 { 0.0 } else { wrong };
                    element(value, place, sample) + error
                });
                vec![Tensor::new(&shape, elements.collect::<Vec<f32>>()).unwrap()]
            };
            (0..6).map(sample).collect()
        };
        let (float, other) = (make(0.0), make(0.2));
        assert!(relative_error(&float, &other) < 4e-3);
        let sets = Columns::judged(&float, 0).unwrap();
        let [all, scores] = &sets[..] else { panic!("two sets") };
        assert_eq!(*all, Columns::all());
        assert!(error_in_columns(&float, &other, scores) > 0.4);
    }
    let even = (0..6).map(|seed| vec![crate::testing::noise(&[1, 8, 40], seed)]);
    assert_eq!(Columns::judged(&even.collect::<Vec<_>>(), 0).unwrap(), [Columns::all()]);
}

#[test]
fn only_vectors_of_length_1_are_embeddings() {
    let unit = outputs(&[&[0.6, -0.8], &[0.8, 0.6]]);
    assert!(are_embeddings(&unit, 0).unwrap());
    assert!(!are_embeddings(&outputs(&[&[0.6, -0.8], &[0.9, 0.6]]), 0).unwrap());
    assert!(!are_embeddings(&outputs(&[&[1.0, 0.0], &[0.0, 1.0]]), 0).unwrap());
}

#[test]
fn an_offset_does_not_hide_errors() {
    let error = relative_error;
    let pressure = outputs(&[&[1007.0], &[1019.0]]);
    assert!((error(&pressure, &outputs(&[&[1010.0], &[1016.0]])) - 0.5).abs() < 1e-9);
    let one = outputs(&[&[1000.0]]);
    assert!((error(&one, &outputs(&[&[1003.0]])) - 0.003).abs() < 1e-9);
    let constant = outputs(&[&[1000.0], &[1000.0]]);
    assert!(error(&constant, &outputs(&[&[1000.1], &[1000.1]])) < 0.11);
}

#[test]
fn small_margins_are_likely_to_change() {
    let float = outputs(&[&[0.0, 5.0], &[1.0, 0.0]]);
    let changed = |other: &[Vec<Tensor>]| {
        let margins = float.iter().zip(other).flat_map(|(a, b)| margins_of(&a[0], &b[0]));
        changed(&margins.collect::<Vec<_>>())
    };
    let same = changed(&float);
    let small = changed(&outputs(&[&[0.1, 5.0], &[1.0, 0.1]]));
    let large = changed(&outputs(&[&[1.0, 5.0], &[1.0, 1.0]]));
    assert!(same == 0.0 && small < 1e-6 && (large - 0.158_66).abs() < 1e-3, "{small} {large}");
}

#[test]
fn columns_of_a_vector_are_judged_apart() {
    // Four coordinates in pixels and one score.
    let make = |wrong: f32| -> Vec<Vec<Tensor>> {
        let sample = |sample: usize| {
            let x = |column: usize| ((column * 31 + sample * 41) % 97) as f32 / 48.0 - 1.0;
            vec![300.0 * x(0), 300.0 * x(1), 200.0 * x(2), 250.0 * x(3), x(4) + wrong]
        };
        let samples: Vec<Vec<f32>> = (0..8).map(sample).collect();
        outputs(&samples.iter().map(Vec::as_slice).collect::<Vec<_>>())
    };
    let (float, other) = (make(0.0), make(0.2));
    let sets = Columns::judged(&float, 0).unwrap();
    let [all, score] = &sets[..] else { panic!("two sets") };
    let error = |columns| error_in_columns(&float, &other, columns);
    assert!(error(all) < 1e-3 && error(score) > 0.2);
}

#[test]
fn constants_do_not_hide_errors() {
    // Logits, of which one is masked.
    let sample = |x: f32| [x, -x, -3e38, 0.5 * x];
    let samples = [sample(1.0), sample(-2.0), sample(0.4)];
    let float = outputs(&samples.iter().map(|sample| &sample[..]).collect::<Vec<_>>());
    let other = outputs(&[&[0.0, 0.0, -3e38, 0.0][..]; 3]);
    assert!(relative_error(&float, &other) < 1e-9);
    let sets = Columns::judged(&float, 0).unwrap();
    let [varying] = &sets[..] else { panic!("one set") };
    assert!(error_in_columns(&float, &other, varying) > 0.9);
}

#[test]
fn small_probabilities_need_no_precision_of_their_own() {
    let one_class = outputs(&[&[0.999, 1e-3, 1e-6], &[0.998, 2e-3, 2e-6]]);
    assert_eq!(Columns::judged(&one_class, 0).unwrap(), [Columns::all()]);
    assert!(is_distribution(&one_class, 0).unwrap());
    assert!(!is_distribution(&outputs(&[&[0.5, 0.6]]), 0).unwrap());
    let float = outputs(&[&[0.9, 0.1, 1e-5], &[0.2, 0.8, 2e-5], &[0.5, 0.5, 3e-5]]);
    assert_eq!(Columns::judged(&float, 0).unwrap(), [Columns::all()]);
}

#[test]
fn a_small_variation_is_not_a_constant() {
    let pressure = outputs(&[&[101_325.0], &[101_330.0], &[101_320.0]]);
    let constant = outputs(&[&[101_325.0], &[101_325.0], &[101_325.0]]);
    assert!(relative_error(&pressure, &constant) > 0.9);
}

#[test]
fn small_models_are_judged_on_many_samples() {
    let mut net = crate::testing::Net::new();
    let x = net.input(&[1, 4, 2, 2]);
    let y = net.begin(&x);
    let model = net.finish(&[&y]);
    let samples: Vec<Vec<Tensor>> =
        (0..200).map(|seed| vec![crate::testing::noise(&[1, 4, 2, 2], seed)]).collect();
    let reference = Reference::new(&model, &samples, None).unwrap();
    assert_eq!(reference.outputs.count(), JUDGED);
}
