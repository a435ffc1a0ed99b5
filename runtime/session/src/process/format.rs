//! Recognizes the formats of image and audio files by their first bytes.

use super::Error;

/// The kind of content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// An image.
    Image,
    /// Audio.
    Audio,
}

impl Content {
    /// Returns the formats of this content that can be read.
    const fn readable(self) -> &'static str {
        match self {
            Content::Image => "PNG or JPEG",
            Content::Audio => "WAV",
        }
    }
}

/// The format of a file.
struct Format {
    /// The name with its article.
    name: &'static str,
    content: Content,
    /// Whether this crate can read it.
    is_readable: bool,
}

/// Returns the format of a file; `None` if it is unknown.
fn format_of(bytes: &[u8]) -> Option<Format> {
    let (name, content) = match bytes {
        [0x89, b'P', b'N', b'G', ..] => ("a PNG", Content::Image),
        [0xff, 0xd8, 0xff, ..] => ("a JPEG", Content::Image),
        [b'G', b'I', b'F', b'8', ..] => ("a GIF", Content::Image),
        [b'B', b'M', _, _, _, _, 0, 0, 0, 0, ..] => ("a BMP", Content::Image),
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => ("a TIFF", Content::Image),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => {
            ("a WebP", Content::Image)
        }
        [_, _, _, _, b'f', b't', b'y', b'p', b'a', b'v', b'i', b'f', ..] => {
            ("an AVIF", Content::Image)
        }
        [_, _, _, _, b'f', b't', b'y', b'p', b'h', b'e', b'i', _, ..] => ("a HEIC", Content::Image),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'A', b'V', b'E', ..] => {
            ("a WAV", Content::Audio)
        }
        [b'f', b'L', b'a', b'C', ..] => ("a FLAC", Content::Audio),
        [b'O', b'g', b'g', b'S', ..] => ("an Ogg", Content::Audio),
        [b'I', b'D', b'3', ..] => ("an MP3", Content::Audio),
        _ => return None,
    };
    let is_readable = matches!(name, "a PNG" | "a JPEG" | "a WAV");
    Some(Format { name, content, is_readable })
}

/// Checks that a file can be read as this content. Unknown formats are left to the decoder.
///
/// # Errors
/// Returns [`Error::Format`] for a format that cannot be read, and [`Error::Content`] for a format
/// of other content.
pub(super) fn check(bytes: &[u8], wanted: Content) -> Result<(), Error> {
    let readable = wanted.readable();
    match format_of(bytes) {
        Some(Format { name, content, .. }) if content != wanted => {
            Err(Error::Content { format: name, readable })
        }
        Some(Format { name, is_readable: false, .. }) => {
            Err(Error::Format { format: name, readable })
        }
        _ => Ok(()),
    }
}

/// Returns the content of a file; `None` if its format is unknown.
pub(super) fn content_of(bytes: &[u8]) -> Option<Content> {
    format_of(bytes).map(|format| format.content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_that_cannot_be_read_are_named_with_their_cure() {
        let image = |bytes: &[u8]| check(bytes, Content::Image).map_err(|e| e.to_string());
        for (bytes, name) in [
            (&b"GIF89a"[..], "a GIF"),
            (b"BM\x46\0\0\0\0\0\0\0", "a BMP"),
            (b"II\x2a\0", "a TIFF"),
            (b"MM\0\x2a", "a TIFF"),
            (b"RIFF\x10\0\0\0WEBPVP8 ", "a WebP"),
            (b"\0\0\0\x20ftypavif", "an AVIF"),
            (b"\0\0\0\x20ftypheic", "a HEIC"),
        ] {
            let expected = format!("is {name}; convert it to PNG or JPEG");
            assert_eq!(image(bytes), Err(expected));
        }
        for bytes in [&b"\x89PNG\r\n"[..], b"\xff\xd8\xff\xe0", b"?", b""] {
            assert_eq!(image(bytes), Ok(()));
        }
        let expected = "is a WAV, but the model takes PNG or JPEG";
        assert_eq!(image(b"RIFF\x10\0\0\0WAVEfmt "), Err(expected.into()));
        let audio = |bytes: &[u8]| check(bytes, Content::Audio).map_err(|e| e.to_string());
        assert_eq!(audio(b"fLaC"), Err("is a FLAC; convert it to WAV".into()));
        assert_eq!(audio(b"OggS"), Err("is an Ogg; convert it to WAV".into()));
        assert_eq!(audio(b"ID3\x04"), Err("is an MP3; convert it to WAV".into()));
        assert_eq!(audio(b"\x89PNG"), Err("is a PNG, but the model takes WAV".into()));
        assert_eq!(audio(b"RIFF\xff\xff\xff\xffWAVEfmt "), Ok(()));
    }
}
