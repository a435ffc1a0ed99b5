//! What the user sees: data on stdout, words on stderr.

use std::io::{ErrorKind, Write as _};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

/// Prints data. A reader that has gone away ends the process quietly.
pub fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| {
        let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
        stdout.write_all(end.as_bytes())?;
        stdout.flush()
    });
    if let Err(error) = written {
        let code = if error.kind() == ErrorKind::BrokenPipe { 0 } else { 2 };
        std::process::exit(code);
    }
}

/// Prints one JSON object.
pub fn json(value: &serde_json::Value) {
    print(&serde_json::to_string_pretty(value).expect("a value of strings and numbers is JSON"));
}

/// Says something to whoever looks on.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// An error with its causes as one sentence.
pub fn sentence(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        // A cause that the sentence tells already is not told again.
        if !text.contains(&cause) {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
    }
    text
}

/// Tells an error.
pub fn error(error: &anyhow::Error) {
    let text = sentence(error);
    if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
        let red = anstyle::AnsiColor::Red.on_default().bold();
        say(&format!("{red}error:{red:#} {text}"));
    } else {
        say(&format!("error: {text}"));
    }
}

/// A plain table; columns after the first are aligned to the right.
pub fn table<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(head);
    for row in rows {
        table.add_row(row);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        let alignment = if index == 0 { CellAlignment::Left } else { CellAlignment::Right };
        column.set_cell_alignment(alignment);
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Text in XML or HTML, also between double quotes.
pub fn escaped(text: &str) -> String {
    let replaced = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    replaced.replace('"', "&quot;").replace(|c: char| c.is_control() && c != '\n', " ")
}

/// A number of bytes for people.
pub fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB"];
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
    fn bytes_are_told_in_the_unit_that_fits() {
        assert_eq!([bytes(7), bytes(1536), bytes(3 << 20)], ["7 B", "1.5 KiB", "3.0 MiB"]);
    }

    #[test]
    fn tables_have_no_frames() {
        let text = table(["stage", "nodes"], [["fold".into(), "7".into()]]);
        assert_eq!(text, "stage  nodes\nfold       7\n");
    }
}
