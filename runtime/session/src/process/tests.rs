//! Tests of pre-processing through its public interface.

use hardtack_bundle::DType;
use hardtack_bundle::manifest::{Extent, Layout};
use hardtack_bundle::process::{Array, ChannelOrder, Colour, Fit, Image};

use super::*;

fn port(shape: &[u64]) -> Port<'static> {
    Port {
        name: "input",
        dtype: DType::F32,
        shape: shape
            .iter()
            .map(|size| if *size == 0 { Extent::Named("batch") } else { Extent::Fixed(*size) })
            .collect(),
        layout: Layout::Plain,
        quantization: None,
    }
}

fn picture(height: u32, width: u32, order: ChannelOrder) -> Preprocess {
    Preprocess::Image(Image {
        height,
        width,
        fit: Fit::Stretch,
        colour: Colour::Rgb,
        order,
        mean: [127.5].into_iter().collect(),
        deviation: [127.5].into_iter().collect(),
    })
}

fn keyword_array() -> Preprocess {
    Preprocess::Array(Array {
        mean: [83.0].into_iter().collect(),
        deviation: [1.0 / 0.584_702_9].into_iter().collect(),
    })
}

#[test]
fn settings_that_do_not_match_the_model_are_rejected_at_once() {
    let nchw = picture(8, 9, ChannelOrder::Nchw);
    assert!(Preprocessor::new(nchw.clone(), &port(&[0, 3, 8, 9])).is_ok());
    let error = Preprocessor::new(nchw, &port(&[0, 8, 9, 3])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "input `input` takes the shape [any, 8, 9, 3], but got [1, 3, 8, 9]"
    );
}

#[test]
fn an_array_becomes_one_sample() {
    let pixels = Tensor::new(&[2, 2, 3], vec![255u8; 12]).unwrap();
    let process = picture(4, 4, ChannelOrder::Nchw);
    let input = Preprocessor::new(process, &port(&[0, 3, 4, 4])).unwrap().array(&pixels).unwrap();
    assert_eq!(input.shape(), [1, 3, 4, 4]);
    assert!(input.as_f32().unwrap().iter().all(|x| (x - 1.0).abs() < 1e-6));

    let features = Tensor::new(&[49, 10, 1], vec![93i8; 490]).unwrap();
    let keyword = Preprocessor::new(keyword_array(), &port(&[0, 49, 10, 1])).unwrap();
    let input = keyword.array(&features).unwrap();
    assert_eq!(input.shape(), [1, 49, 10, 1]);
    assert!((input.as_f32().unwrap()[0] - 5.847_029).abs() < 1e-5);

    let nothing = Tensor::new(&[0, 10], Vec::<f32>::new()).unwrap();
    assert!(matches!(keyword.array(&nothing), Err(Error::EmptyArray { .. })));
    assert!(matches!(keyword.bytes(b"?"), Err(Error::TakesArrays { .. })));

    let digits = Tensor::new(&[64], vec![3u8; 64]).unwrap();
    let input = Preprocessor::identity(&port(&[0, 64])).array(&digits).unwrap();
    assert_eq!((input.shape(), input.dtype()), (&[1, 64][..], DType::F32));
}

#[test]
fn shapes_are_checked_without_the_array() {
    let pictures =
        Preprocessor::new(picture(4, 4, ChannelOrder::Nhwc), &port(&[1, 4, 4, 3])).unwrap();
    let keyword = Preprocessor::new(keyword_array(), &port(&[0, 49, 10, 1])).unwrap();
    let identity = Preprocessor::identity(&port(&[1, 64]));
    let cases: [(&Preprocessor, &[usize], bool); 9] = [
        (&pictures, &[9, 7, 3], true),
        (&pictures, &[2, 9, 7, 3], false),
        (&pictures, &[9, 7, 2], false),
        (&keyword, &[49, 10], true),
        (&keyword, &[49, 11], false),
        (&keyword, &[3, 49, 10], true),
        (&identity, &[8, 8], true),
        (&identity, &[2, 64], false),
        (&identity, &[0, 64], false),
    ];
    for (preprocessor, shape, fits) in cases {
        assert_eq!(preprocessor.accepts(DType::U8, shape).is_ok(), fits, "{shape:?}");
        let array = Tensor::new(shape, vec![1u8; shape.iter().product()]).unwrap();
        assert_eq!(preprocessor.array(&array).is_ok(), fits, "{shape:?}");
    }
    // Arrays of these sizes cannot be allocated.
    for shape in [&[1 << 40, 64][..], &[1 << 20, 1 << 20, 3], &[1 << 60]] {
        for preprocessor in [&pictures, &identity] {
            assert!(preprocessor.accepts(DType::F32, shape).is_err(), "{shape:?}");
        }
    }
}

#[test]
fn arrays_of_other_models_are_not_samples() {
    let images = |colour, channels| {
        let Preprocess::Image(image) = picture(8, 9, ChannelOrder::Nhwc) else { unreachable!() };
        let process = Preprocess::Image(Image { colour, ..image });
        Preprocessor::new(process, &port(&[1, 8, 9, channels])).unwrap()
    };
    let (rgb, gray) = (images(Colour::Rgb, 3), images(Colour::Gray, 1));
    let cases: [(&Preprocessor, DType, &[usize], bool); 12] = [
        (&rgb, DType::F32, &[8, 9, 3], true),
        (&rgb, DType::I8, &[8, 9], true),
        (&rgb, DType::U8, &[30, 40, 3], true),
        (&rgb, DType::U8, &[1, 30, 40, 4], true),
        (&rgb, DType::U8, &[30, 40, 1], false),
        (&rgb, DType::F32, &[30, 40, 3], false),
        (&rgb, DType::I8, &[49, 10, 1], false),
        (&rgb, DType::F32, &[640], false),
        (&rgb, DType::U8, &[0, 9, 3], false),
        (&gray, DType::U8, &[30, 40], true),
        (&gray, DType::U8, &[30, 40, 3], true),
        (&gray, DType::I8, &[49, 10, 1], false),
    ];
    for (preprocessor, dtype, shape, fits) in cases {
        let accepted = preprocessor.accepts_sample(dtype, shape);
        assert_eq!(accepted.is_ok(), fits, "{dtype} {shape:?}");
    }
    assert_eq!(
        rgb.accepts_sample(DType::I8, &[49, 10, 1]).unwrap_err().to_string(),
        "an array of shape [49, 10, 1] and type i8 was given, but the model expects [8, 9, 3], or \
         u8 images of shape [height, width, 3], which are resized"
    );
}

#[test]
fn oversized_files_are_rejected() {
    let process = picture(4, 4, ChannelOrder::Nhwc);
    let pictures = Preprocessor::new(process, &port(&[1, 4, 4, 3])).unwrap();
    let path = std::env::temp_dir().join(format!("hardtack-long-{}", std::process::id()));
    // A sparse file.
    File::create_new(&path).unwrap().set_len(MAX_FILE + 1).unwrap();
    let error = pictures.file(&path);
    std::fs::remove_file(&path).unwrap();
    let error = error.err().unwrap().to_string();
    assert!(error.contains("more than 1073741824 bytes"), "{error}");
}

#[test]
fn errors_name_the_file() {
    let process = picture(4, 4, ChannelOrder::Nhwc);
    let pictures = Preprocessor::new(process, &port(&[1, 4, 4, 3])).unwrap();
    let error = pictures.file(Path::new("no/such.jpg")).err().unwrap().to_string();
    assert!(error.starts_with("no/such.jpg: cannot be read: "), "{error}");
}

#[cfg(not(feature = "image"))]
#[test]
fn a_missing_feature_is_named() {
    let process = picture(4, 4, ChannelOrder::Nhwc);
    let pictures = Preprocessor::new(process, &port(&[1, 4, 4, 3])).unwrap();
    assert!(matches!(pictures.bytes(b"?"), Err(Error::Feature { feature: "image", .. })));
}

#[cfg(feature = "image")]
#[test]
fn an_image_file_and_its_pixels_give_the_same_input() {
    use ::image::{ImageFormat, Rgb, RgbImage};

    let decoded = RgbImage::from_fn(30, 20, |x, y| Rgb([8 * x as u8, 12 * y as u8, 99]));
    let mut png = std::io::Cursor::new(vec![]);
    decoded.write_to(&mut png, ImageFormat::Png).unwrap();
    let process = picture(10, 7, ChannelOrder::Nchw);
    let pictures = Preprocessor::new(process, &port(&[1, 3, 10, 7])).unwrap();
    let mut inputs = pictures.bytes(&png.into_inner()).unwrap();
    assert_eq!((inputs.len(), inputs.period()), (1, None));
    let pixels = Tensor::new(&[20, 30, 3], decoded.into_raw()).unwrap();
    assert_eq!(inputs.next().unwrap(), pictures.array(&pixels).unwrap());
    assert_eq!(inputs.len(), 0);
}

#[cfg(feature = "audio")]
mod recordings {
    use hardtack_bundle::process::{Audio, AudioFeature, Level, Spectrum};

    use super::*;

    fn keyword() -> Audio {
        Audio {
            sample_rate: 16000,
            level: Level::Peak,
            window: 480,
            stride: 320,
            frames: 49,
            spectrum: Spectrum::Magnitude,
            feature: AudioFeature::Mfcc {
                bands: 40,
                low_hz: 20.0,
                high_hz: 4000.0,
                floor: 1e-6,
                coefficients: 10,
            },
            mean: 0.0,
            deviation: 1.0,
        }
    }

    fn assets(file: &str) -> std::path::PathBuf {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/data")).join(file)
    }

    /// The first four coefficients of every 24th frame, computed in double precision from the
    /// definitions in `tf.signal`.
    #[test]
    fn keyword_features_of_recorded_words() {
        let process = Preprocess::Audio(keyword());
        let words = Preprocessor::new(process, &port(&[0, 49, 10, 1])).unwrap();
        let cases = [
            ("yes", [-34.8027, 8.1596, 4.225, 2.0624], [-6.7675, -0.7813, 12.3909, -1.9057]),
            ("no", [-26.4138, 3.994, -0.572, 0.1841], [-11.0669, 10.3572, 3.2162, 3.5897]),
            ("noise", [10.6805, 2.5507, 1.6357, 2.1146], [11.4791, 3.4283, 2.2014, 1.0021]),
        ];
        for (word, first, middle) in cases {
            let path = assets(&format!("keyword_spotting/{word}_1000ms.wav"));
            let mut inputs = words.file(&path).unwrap();
            assert_eq!(inputs.len(), 1);
            let input = inputs.next().unwrap();
            assert_eq!(input.shape(), [1, 49, 10, 1]);
            let rows: Vec<_> = input.as_f32().unwrap().chunks(10).collect();
            for (row, expected) in [(rows[0], first), (rows[24], middle)] {
                for (a, b) in row.iter().zip(expected) {
                    assert!((a - b).abs() < 2e-3, "{word}: {a}, not {b}");
                }
            }
        }
    }

    #[test]
    fn streaming_speech() {
        let audio = Audio {
            level: Level::FullScale,
            window: 576,
            stride: 512,
            frames: 0,
            feature: AudioFeature::Samples,
            ..keyword()
        };
        let process = Preprocess::Audio(audio);
        let speech = Preprocessor::new(process, &port(&[0, 0])).unwrap();
        let mut inputs = speech.file(&assets("voice_detection/speech_6s.wav")).unwrap();
        assert_eq!((inputs.len(), inputs.period()), (188, Some(0.032)));
        let (first, second) = (inputs.next().unwrap(), inputs.next().unwrap());
        assert_eq!(first.shape(), [1, 576]);
        let (first, second) = (first.as_f32().unwrap(), second.as_f32().unwrap());
        assert!(first[..64].iter().all(|x| *x == 0.0));
        assert_eq!(first[512..], second[..64]);
    }

    #[test]
    fn lengths_of_audio_are_checked_without_samples() {
        let samples = 480 + 48 * 320;
        let port = port(&[1, 49, 10]);
        let words = Preprocessor::new(Preprocess::Audio(keyword()), &port).unwrap();
        for (dtype, shape, fits) in [
            (DType::I16, &[samples][..], true),
            (DType::I16, &[1, samples + 319], true),
            (DType::I16, &[samples + 49 * 320], false),
            (DType::I16, &[2, samples], false),
            (DType::F32, &[49, 10], true),
            (DType::F32, &[49, 11], false),
            (DType::F32, &[1 << 40], false),
        ] {
            assert_eq!(words.accepts(dtype, shape).is_ok(), fits, "{dtype} {shape:?}");
        }
    }

    #[test]
    fn arrays_are_samples_or_features() {
        let process = Preprocess::Audio(keyword());
        let words = Preprocessor::new(process, &port(&[0, 49, 10, 1])).unwrap();
        let samples = Tensor::new(&[16000], vec![5i16; 16000]).unwrap();
        assert_eq!(words.array(&samples).unwrap().shape(), [1, 49, 10, 1]);
        let features = Tensor::new(&[49, 10, 1], vec![2.5f32; 490]).unwrap();
        let input = words.array(&features).unwrap();
        assert_eq!(input, features.reshape(&[1, 49, 10, 1]).unwrap());
        let long = Tensor::new(&[40000], vec![5i16; 40000]).unwrap();
        assert!(matches!(words.array(&long), Err(Error::SeveralRuns { runs: 3 })));
        let raw = Tensor::new(&[49, 10, 1], vec![2i8; 490]).unwrap();
        assert!(matches!(words.array(&raw), Err(Error::Array { .. })));
    }

    #[test]
    fn another_sample_rate_is_an_error_with_advice() {
        let process = Preprocess::Audio(keyword());
        let words = Preprocessor::new(process, &port(&[0, 49, 10, 1])).unwrap();
        let error = words.samples(vec![0.0], 44100).err().unwrap().to_string();
        assert!(error.contains("44100") && error.contains("sox in.wav -r 16000"), "{error}");
    }
}
