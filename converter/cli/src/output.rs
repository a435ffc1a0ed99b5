//! Output to the user: results on stdout, messages on stderr.
//!
//! Names come from files that may be hostile. Control characters in a name could drive the
//! terminal, and a newline could forge a line of output. All text is therefore escaped here before
//! it is printed. Text of several lines keeps its newlines, so callers pass each name through
//! [`plain`], or build the text with [`table`].

pub mod file;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// The result of a subcommand that ran without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The work is done, or the check passed.
    Yes,
    /// The result is negative: a bundle was refused, a check failed, or a model cannot be
    /// converted.
    No,
}

/// The exit code of an error.
pub const ERROR: u8 = 2;

/// Returns the exit code of a result.
pub fn code(answer: Answer) -> u8 {
    match answer {
        Answer::Yes => 0,
        Answer::No => 1,
    }
}

/// Prints text to stdout and escapes control characters other than newlines. Exits quietly when the
/// reader has closed the pipe.
pub fn print(text: &str) {
    let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
    write_out(&[plain_lines(text).as_bytes(), end.as_bytes()]);
}

/// Writes bytes to stdout as they are. Exits quietly when the reader has closed the pipe.
fn write_out(pieces: &[&[u8]]) {
    let mut stdout = std::io::stdout().lock();
    let mut written = Ok(());
    for piece in pieces {
        written = written.and_then(|()| stdout.write_all(piece));
    }
    if let Err(error) = written.and_then(|()| stdout.flush()) {
        let code = if error.kind() == ErrorKind::BrokenPipe { 0 } else { 2 };
        std::process::exit(code);
    }
}

/// Prints one JSON object.
pub fn json(value: &serde_json::Value) {
    print(&json_text(value));
}

/// Returns a JSON object as text, with control characters escaped.
pub fn json_text(value: &serde_json::Value) -> String {
    let text = serde_json::to_string_pretty(value);
    json_escaped(&text.expect("strings and numbers can be written as JSON"))
}

/// Prints one line to stderr.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", plain(text));
}

/// Prints text of several lines to stderr, for commands whose stdout carries data.
pub fn say_lines(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", plain_lines(text).trim_end_matches('\n'));
}

/// Returns whether a character must be escaped: control characters (C0, C1, DEL), bidirectional
/// controls, line separators and noncharacters.
fn is_control(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}' | '\u{2029}')
        || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}')
}

/// Escapes all control characters in a text, newlines too: `\n`, `\u{1b}`.
pub fn plain(text: &str) -> Cow<'_, str> {
    escape(text, is_control)
}

/// Escapes control characters except newlines.
fn plain_lines(text: &str) -> Cow<'_, str> {
    escape(text, |c| c != '\n' && is_control(c))
}

fn escape(text: &str, is_escaped: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_escaped) {
        return text.into();
    }
    let mut escaped = String::new();
    for c in text.chars() {
        match is_escaped(c) {
            true => escaped.extend(c.escape_default()),
            false => escaped.push(c),
        }
    }
    escaped.into()
}

/// Escapes what the JSON writer leaves as it is in strings: DEL, C1 and bidirectional controls.
fn json_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match is_control(c) && c != '\n' {
            true => {
                let _ = write!(escaped, "\\u{:04x}", u32::from(c));
            }
            false => escaped.push(c),
        }
    }
    escaped
}

/// Returns an error and its causes as one line.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        // Some errors already include the text of their cause.
        if !text.contains(&cause) {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    text
}

/// Prints an error to stderr.
pub fn error(error: &anyhow::Error) {
    let text = sentence(error);
    let red = match std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        true => anstyle::AnsiColor::Red.on_default().bold(),
        false => anstyle::Style::new(),
    };
    let _ = writeln!(std::io::stderr().lock(), "{red}error:{red:#} {}", plain(&text));
}

/// Formats a table without frames and escapes its cells. Columns after the first are right-aligned.
pub fn table<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head);
    for row in rows {
        table.add_row(row.iter().map(|cell| plain(cell)));
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        let alignment = if index == 0 { CellAlignment::Left } else { CellAlignment::Right };
        column.set_cell_alignment(alignment);
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Escapes text for XML and HTML, in content and in quoted attributes.
pub fn escaped(text: &str) -> String {
    let replaced = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    plain_lines(&replaced.replace('"', "&quot;").replace('\'', "&#39;")).into_owned()
}

/// Escapes text for one line of Markdown, including table cells.
pub fn markdown(text: &str) -> String {
    let mut escaped = String::new();
    for c in plain(text).chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '!' | '#' => {
                escaped.extend(['\\', c]);
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// Formats a number of bytes with a binary unit, such as `1.5 KiB`.
pub fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_printed_in_the_unit_that_fits() {
        assert_eq!([bytes(7), bytes(1536), bytes(3 << 20)], ["7 B", "1.5 KiB", "3.0 MiB"]);
    }

    /// A name that clears the screen, forges a line, reverses text and rings the bell.
    const HOSTILE: &str = "a\u{1b}[2J\nvectors: all hold\u{202e}\u{9b}31m\u{7f}\r\u{7}ö";

    #[test]
    fn control_characters_are_escaped() {
        let seen = r"a\u{1b}[2J\nvectors: all hold\u{202e}\u{9b}31m\u{7f}\r\u{7}ö";
        assert_eq!(plain(HOSTILE), seen);
        assert_eq!(plain("\u{2067}\u{2028}\u{200f}"), r"\u{2067}\u{2028}\u{200f}");
        let as_it_is = "größe/層_1 👩\u{200d}🔬 \"x\" \\n";
        assert!(matches!(plain(as_it_is), Cow::Borrowed(text) if text == as_it_is));
        assert_eq!(plain_lines(HOSTILE), seen.replace("\\n", "\n"));
        let rows = table(["name", "n"], [[HOSTILE.into(), "1".into()]]);
        assert_eq!(rows.lines().count(), 2, "{rows}");
        assert!(rows.contains(seen), "{rows}");
    }

    #[test]
    fn json_strings_keep_their_value() {
        let value = serde_json::json!({ "name": HOSTILE, "n": [1, 2] });
        let text = json_escaped(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!text.chars().any(|c| is_control(c) && c != '\n'), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn markup_in_names_is_escaped() {
        assert_eq!(
            escaped("<script>alert('x' && \"y\")</script>\u{1b}"),
            "&lt;script&gt;alert(&#39;x&#39; &amp;&amp; &quot;y&quot;)&lt;/script&gt;\\u{1b}"
        );
        assert_eq!(
            markdown("a|b `c` <img> [l](javascript:x)\n# h"),
            r"a\|b \`c\` &lt;img> \[l\](javascript:x)\\n\# h"
        );
    }

    #[test]
    fn tables_have_no_frames() {
        let text = table(["stage", "nodes"], [["fold".into(), "7".into()]]);
        assert_eq!(text, "stage  nodes\nfold       7\n");
    }
}
