//! Checks the words of the project: comments, messages, pages and help texts use the field's terms,
//! doc comments say something, and links lead somewhere.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Words and phrases that this project does not use, each with what to write instead.
const BANNED: &[(&str, &str)] = &[
    ("so many", "the number itself, or N"),
    ("so-manieth", "the n-th"),
    ("in the mean", "on average"),
    ("anew", "again"),
    ("alike", "the same"),
    ("beside", "next to, compared with"),
    ("told", "reported, listed, printed"),
    ("tells", "reports, lists, prints"),
    ("hears", "receives"),
    ("looks on", "observes"),
    ("for people", "for users"),
    ("reals", "floats"),
    ("sums of products", "accumulators, dot products"),
    ("kernels that slide", "spatial convolution kernels"),
    ("function of one value", "unary element-wise operator"),
    ("functions of one value", "unary element-wise operators"),
    ("transport form", "compressed bundle"),
    ("near its entropy", "entropy-coded"),
    ("way of data", "pipeline"),
    ("for the way", "for transfer"),
    ("states its scales", "pre-quantized (QDQ or QOperator)"),
    ("lattice", "strided view"),
    ("pictures", "images"),
    ("recordings", "audio files"),
];

/// A piece of text: the line where it begins, and the text.
type Piece = (usize, String);

/// A file's comments, doc comments and string literals, without the code between them. Comments on
/// consecutive lines are one piece.
#[derive(Default)]
struct Prose {
    comments: Vec<Piece>,
    docs: Vec<Piece>,
    strings: Vec<Piece>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every file below `folder` whose name ends with one of `endings`, except build outputs.
fn files(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !path.is_symlink() && name != "target" && name != ".git" && name != "corpus" {
                files(&path, endings, found);
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
}

/// The end of the string literal whose opening quote is at `start`, and its content.
fn literal(source: &str, start: usize, hashes: Option<usize>) -> (usize, &str) {
    let content = start + 1;
    if let Some(hashes) = hashes {
        let closing = format!("\"{}", "#".repeat(hashes));
        let length = source[content..].find(&closing).expect("a raw string ends");
        return (content + length + closing.len(), &source[content..content + length]);
    }
    let bytes = source.as_bytes();
    let mut at = content;
    while bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1, &source[content..at])
}

fn prose(source: &str) -> Prose {
    let bytes = source.as_bytes();
    let (mut prose, mut at, mut line) = (Prose::default(), 0, 1);
    let mut add = |kind: u8, line: usize, text: &str, last: &mut [usize; 2]| {
        let list = if kind == 0 { &mut prose.comments } else { &mut prose.docs };
        match list.last_mut() {
            Some((_, whole)) if last[kind as usize] + 1 == line => *whole += &format!(" {text}"),
            _ => list.push((line, text.to_owned())),
        }
        last[kind as usize] = line;
    };
    let mut last = [0; 2];
    let mut strings = Vec::new();
    while at < bytes.len() {
        let rest = &source[at..];
        match bytes[at] {
            b'\n' => (line, at) = (line + 1, at + 1),
            b'/' if rest.starts_with("//") => {
                let end = rest.find('\n').unwrap_or(rest.len());
                let comment = &rest[..end];
                let doc = comment.starts_with("///") || comment.starts_with("//!");
                add(doc.into(), line, comment.trim_start_matches(['/', '!']).trim(), &mut last);
                at += end;
            }
            b'"' => {
                let hashes = source[..at].bytes().rev().take_while(|byte| *byte == b'#').count();
                let raw = source[..at - hashes].ends_with('r');
                let (end, text) = literal(source, at, raw.then_some(hashes));
                strings.push((line, text.split_whitespace().collect::<Vec<_>>().join(" ")));
                line += source[at..end].matches('\n').count();
                at = end;
            }
            // A character, or else a lifetime.
            b'\'' if rest.starts_with("'\\") => at += rest[3..].find('\'').unwrap() + 4,
            b'\'' if rest[1..].chars().nth(1) == Some('\'') => {
                at += 2 + rest[1..].chars().next().unwrap().len_utf8();
            }
            _ => at += rest.chars().next().unwrap().len_utf8(),
        }
    }
    prose.strings = strings;
    prose
}

/// A format string without what stands between its braces.
fn without_values(text: &str) -> String {
    let mut depth = 0usize;
    text.chars()
        .filter(|c| {
            depth += usize::from(*c == '{');
            let kept = depth == 0;
            depth = depth.saturating_sub(usize::from(*c == '}'));
            kept
        })
        .collect()
}

/// Whether `text` has `phrase` with no letter before or after it.
fn has(text: &str, phrase: &str) -> bool {
    text.match_indices(phrase).any(|(at, _)| {
        let word = |c: char| c.is_alphanumeric() || c == '_';
        !text[..at].ends_with(word) && !text[at + phrase.len()..].starts_with(word)
    })
}

fn banned(place: &str, pieces: &[Piece], faults: &mut Vec<String>) {
    for (line, text) in pieces {
        let text = text.to_lowercase();
        for (phrase, better) in BANNED.iter().filter(|(phrase, _)| has(&text, phrase)) {
            faults.push(format!("{place}:{line}: \"{phrase}\": write {better}"));
        }
    }
}

/// Whether a doc comment says nothing: three words or fewer about something it does not name.
fn is_empty(doc: &str) -> bool {
    let words: Vec<&str> = doc.split_whitespace().collect();
    let vague = ["Its", "Their", "What", "Why", "Why.", "How", "Where"];
    words.len() <= 3 && words.first().is_some_and(|first| vague.contains(first))
}

#[test]
fn sources_use_the_terms_of_the_field() {
    let (root, mut sources, mut faults) = (root(), Vec::new(), Vec::new());
    files(&root, &[".rs"], &mut sources);
    assert!(sources.len() > 300, "only {} sources", sources.len());
    for path in sources.iter().filter(|path| !path.ends_with("language.rs")) {
        let source = std::fs::read_to_string(path).unwrap();
        let place = path.strip_prefix(&root).unwrap().display().to_string();
        let prose = prose(&source);
        // A string of one word may be a name in a file or a test.
        let strings = prose.strings.iter().map(|(line, text)| (*line, without_values(text)));
        let strings: Vec<Piece> = strings.filter(|(_, text)| text.trim().contains(' ')).collect();
        for pieces in [&prose.comments, &prose.docs, &strings] {
            banned(&place, pieces, &mut faults);
        }
        for (line, doc) in prose.docs.iter().filter(|(_, doc)| is_empty(doc)) {
            faults.push(format!("{place}:{line}: \"{doc}\" says nothing"));
        }
        for (index, line) in source.lines().enumerate() {
            if line.trim_start().starts_with("//") && line.chars().count() > 100 {
                faults.push(format!("{place}:{}: a comment of over 100 columns", index + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn pages_use_the_terms_of_the_field() {
    let (root, mut pages, mut faults) = (root(), Vec::new(), Vec::new());
    files(&root, &[".md"], &mut pages);
    assert!(pages.len() > 10, "only {} pages", pages.len());
    for path in pages {
        let text = std::fs::read_to_string(&path).unwrap();
        let place = path.strip_prefix(&root).unwrap().display().to_string();
        // A phrase may go over the end of a line.
        let lines: Vec<&str> = text.lines().collect();
        let pairs: Vec<Piece> = lines
            .iter()
            .enumerate()
            .map(|(index, line)| {
                let next = lines.get(index + 1).and_then(|next| next.split_whitespace().next());
                (index + 1, format!("{line} {}", next.unwrap_or_default()))
            })
            .collect();
        banned(&place, &pairs, &mut faults);
    }
    faults.dedup();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn links_of_pages_lead_to_files() {
    let (root, mut pages, mut faults) = (root(), Vec::new(), Vec::new());
    files(&root, &[".md"], &mut pages);
    for page in pages {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap();
            let elsewhere =
                path.is_empty() || path.contains("://") || path.contains(char::is_whitespace);
            if !elsewhere && !page.parent().unwrap().join(path).exists() {
                faults.push(format!("{}: {link}", page.strip_prefix(&root).unwrap().display()));
            }
        }
    }
    assert!(faults.is_empty(), "links to nothing:\n{}", faults.join("\n"));
}

#[test]
fn help_uses_the_terms_of_the_field() {
    let help = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_hardtack")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let main = help(&["--help"]);
    let commands = main.lines().skip_while(|line| *line != "Commands:").skip(1);
    let verbs: Vec<&str> = commands
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(verbs.contains(&"convert") && verbs.len() > 8, "{verbs:?}");
    let mut faults = Vec::new();
    for verb in verbs.into_iter().filter(|verb| *verb != "help") {
        let text = help(&[verb, "--help"]).split_whitespace().collect::<Vec<_>>().join(" ");
        banned(&format!("hardtack {verb} --help"), &[(0, text)], &mut faults);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn prose_is_found() {
    let source = "//! One\n//! two.\nfn a() { let _ = ('\"', '\\'', r#\"ra\"w\"#); } // three\n\
        /// Its name.\nconst X: &'static str = \"four \\\" // five\";\n";
    let prose = prose(source);
    assert_eq!(prose.docs, [(1, "One two.".to_owned()), (4, "Its name.".to_owned())]);
    assert_eq!(prose.comments, [(3, "three".to_owned())]);
    let strings: Vec<&str> = prose.strings.iter().map(|(_, text)| text.as_str()).collect();
    assert_eq!(strings, ["ra\"w", "four \\\" // five"]);
    assert!(is_empty("Its name.") && is_empty("What is read.") && is_empty("Why."));
    assert!(!is_empty("What a node reads first."));
    assert!(has("as told before", "told") && !has("as untold", "told"));
}
