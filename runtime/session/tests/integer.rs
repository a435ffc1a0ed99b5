//! Fully integer models, from the bytes of a bundle to its outputs, and their errors.

mod models;

use hardtack::{
    Bundle, DType, Error, Extent, Isa, Session, SessionOptions, Tensor, View, ViewMut, golden,
};
use hardtack_bundle::{SectionKind, Writer};

fn open(writer: Writer<'_>) -> Bundle {
    Bundle::from_bytes(writer.finish().unwrap()).unwrap()
}

fn keeping(bundle: &Bundle) -> Session {
    Session::with_options(bundle, SessionOptions { keep_state: true, ..SessionOptions::default() })
        .unwrap()
}

fn f32s(shape: &[usize], values: &[f32]) -> Tensor {
    Tensor::new(shape, values.to_vec()).unwrap()
}

fn i8s(shape: &[usize], values: &[i8]) -> Tensor {
    Tensor::new(shape, values.to_vec()).unwrap()
}

#[test]
fn samples_of_a_batch_run_one_after_another() {
    let bundle = open(models::relu());
    let mut session = Session::new(&bundle).unwrap();
    assert_eq!(session.inputs()[0].to_string(), "x: f32[batch, 4]");
    assert_eq!(session.outputs()[0].shape[0], Extent::Named("batch".into()));
    assert!(session.is_integer() && session.arena_bytes() >= 8);
    for batch in [1, 3, 2, 0] {
        let values: Vec<f32> = (0..4 * batch).map(|i| i as f32 - 3.0).collect();
        let mut outputs = session.run(&[("x", &f32s(&[batch, 4], &values))]).unwrap();
        let expected: Vec<f32> = values.iter().map(|x| x.max(0.0)).collect();
        assert_eq!(outputs.get("y"), Some(&f32s(&[batch, 4], &expected)));
        assert_eq!(outputs[0].0, "y");
        assert!(outputs.take("y").is_some() && outputs.get("y").is_none());
    }
}

#[test]
fn states_are_kept_until_reset() {
    let bundle = open(models::counter());
    let x = i8s(&[1, 4], &[1, 2, 3, 4]);
    let mut session = keeping(&bundle);
    session.run(&[("x", &x)]).unwrap();
    let second = session.run(&[("x", &x)]).unwrap();
    assert_eq!(second.get("y"), Some(&i8s(&[1, 4], &[2, 4, 6, 8])));
    let given = session.run(&[("x", &x), ("sum", &x)]).unwrap();
    assert_eq!(given.get("next"), Some(&i8s(&[1, 4], &[2, 4, 6, 8])), "a given state is used");

    let two = i8s(&[2, 4], &[0; 8]);
    let error = session.run(&[("x", &two)]).unwrap_err();
    assert!(matches!(error, Error::State { .. }), "{error}");
    session.reset();
    session.run(&[("x", &two)]).unwrap();

    let error = Session::new(&bundle).unwrap().run(&[("x", &x)]).unwrap_err().to_string();
    assert_eq!(
        error,
        "input sum: i8[batch, 4] was not given; it is a state: pass it, or set \
         `SessionOptions::keep_state`"
    );
}

#[test]
fn mismatched_inputs_and_outputs_are_explained() {
    let bundle = open(models::counter());
    let mut session = keeping(&bundle);
    let good = i8s(&[1, 4], &[0; 4]);
    let says = |error: Result<hardtack::Outputs, Error>, sentence: &str| {
        assert_eq!(error.unwrap_err().to_string(), sentence);
    };
    says(session.run(&[("z", &good)]), r#"the model has no input "z"; it has "x", "sum""#);
    says(session.run(&[("x", &good), ("x", &good)]), r#"input "x" was given twice"#);
    says(session.run(&[]), "input x: i8[batch, 4] was not given");
    says(
        session.run(&[("x", &f32s(&[1, 4], &[0.0; 4]))]),
        r#"input "x" has elements of type i8, but f32 was given"#,
    );
    says(
        session.run(&[("x", &i8s(&[4], &[0; 4]))]),
        r#"input "x" takes the shape [batch, 4], but [4] was given"#,
    );
    says(
        session.run(&[("x", &good), ("sum", &i8s(&[2, 4], &[0; 8]))]),
        r#"dimension "batch" is 1 in input "x", but 2 in input "sum"; give both the same size"#,
    );

    let mut y = [0i8; 4];
    let mut into = |x: View<'_>, y: ViewMut<'_>| {
        session.run_into(&[("x", x)], &mut [("y", y)]).unwrap_err().to_string()
    };
    assert_eq!(
        into(View::I8(&[0; 3]), ViewMut::I8(&mut y)),
        r#"input "x" takes a multiple of 4 elements, but 3 were given"#
    );
    assert_eq!(
        into(View::I8(&[0; 8]), ViewMut::I8(&mut y)),
        r#"output "y" takes 8 elements, but 4 were given"#
    );
    assert_eq!(
        into(View::I8(&[0; 4]), ViewMut::F32(&mut [0.0; 4])),
        r#"output "y" has elements of type i8, but f32 was given"#
    );
}

#[test]
fn test_vectors_are_compared() {
    let bundle = open(models::relu());
    let mut session = Session::new(&bundle).unwrap();
    let report = golden::check(&bundle, &mut session).unwrap();
    assert!(report.holds());
    assert_eq!((report.cases, report.outputs[0].difference), (1, 0.0));
    assert_eq!(report.outputs[0].name, "y");

    let other = open(models::counter());
    assert_eq!(golden::check(&other, &mut keeping(&other)).unwrap().cases, 0);
}

#[test]
fn steps_are_timed_by_name() {
    let bundle = open(models::relu());
    let mut session = Session::new(&bundle).unwrap();
    let x = f32s(&[2, 4], &[1.0; 8]);
    let (outputs, times) = session.run_profiled(&[("x", &x)]).unwrap();
    assert_eq!(outputs.get("y"), Some(&x));
    let steps: Vec<_> = times.iter().map(|time| (&*time.name, &*time.operator)).collect();
    assert_eq!(steps, [("quantize", "Quantize"), ("relu", "Lookup"), ("dequantize", "Dequantize")]);
}

#[test]
fn kernels_can_be_forced() {
    let bundle = open(models::relu());
    let options = SessionOptions { isa: Some(Isa::Scalar), ..SessionOptions::default() };
    assert_eq!(Session::with_options(&bundle, options).unwrap().isa(), Isa::Scalar);
}

#[test]
fn sections_can_be_read() {
    let bundle = open(models::relu());
    assert_eq!(bundle.manifest().unwrap().name, "hand-made");
    assert!(bundle.labels().unwrap().unwrap().iter().eq(["a", "b", "c", "d"]));
    assert!(bundle.preprocess().unwrap().is_none() && bundle.postprocess().unwrap().is_none());
    assert_eq!(bundle.sections().unwrap().count(), 6);
    bundle.verify().unwrap();
}

#[test]
fn damage_is_found_when_a_section_is_read() {
    let bytes = models::relu().finish().unwrap();
    let sound = Bundle::from_bytes(bytes.clone()).unwrap();
    for section in sound.sections().unwrap().filter(|section| !section.bytes.is_empty()) {
        let mut damaged = bytes.clone();
        damaged[section.offset as usize] ^= 1;
        let Ok(bundle) = Bundle::from_bytes(damaged) else {
            assert_eq!(section.kind, SectionKind::Manifest);
            continue;
        };
        assert!(bundle.verify().is_err(), "{}", section.kind);
        match section.kind {
            SectionKind::Graph | SectionKind::Program(_) => {
                assert!(Session::new(&bundle).is_err(), "{}", section.kind);
            }
            SectionKind::Labels => assert!(bundle.labels().is_err()),
            SectionKind::Golden => assert!(bundle.golden().is_err()),
            _ => {}
        }
    }
}

#[test]
fn a_manifest_that_does_not_match_the_graph_is_rejected() {
    let shape = [hardtack_bundle::manifest::Extent::Fixed(4)];
    let manifest = |name| {
        models::manifest(
            &[models::port(name, DType::F32, &shape)],
            &[models::port("y", DType::F32, &shape)],
            &[],
        )
    };
    let mut other = manifest("x");
    other.outputs[0].dtype = DType::I8;
    let mut writer = Writer::new();
    writer.manifest(&other).unwrap().graph(&models::graph(&manifest("x"))).unwrap();
    let error = Session::new(&open(writer)).err().unwrap();
    assert!(matches!(error, Error::Manifest { .. }), "{error}");
}

#[test]
fn files_are_mapped_or_read_and_named_in_errors() {
    let folder = std::env::temp_dir().join(format!("hardtack-session-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("relu.tack");
    std::fs::write(&path, models::relu().finish().unwrap()).unwrap();
    let mapped = Bundle::open(&path).unwrap();
    let read = Bundle::read(&path).unwrap();
    assert_eq!(mapped.root(), read.root());
    // A mapped bundle stays readable after its file is deleted.
    std::fs::remove_file(&path).unwrap();
    let x = f32s(&[1, 4], &[1.0; 4]);
    assert!(Session::new(&mapped).unwrap().run(&[("x", &x)]).is_ok());

    let error = Bundle::open(&path).unwrap_err().to_string();
    assert!(error.contains("relu.tack") && error.contains("cannot be read"), "{error}");
    std::fs::write(&path, b"").unwrap();
    assert!(Bundle::open(&path).is_err());
    std::fs::write(&path, b"something else, of no meaning at all").unwrap();
    let error = Bundle::open(&path).unwrap_err().to_string();
    assert!(error.ends_with("this is not a Hardtack bundle"), "{error}");
    assert!(Bundle::open(&folder).is_err());
    std::fs::remove_dir_all(&folder).unwrap();
}
