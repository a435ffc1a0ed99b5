//! `hardtack targets`.

use hardtack_targets::{Board, boards};
use serde_json::json;

use crate::output::Answer;
use crate::output::{self, bytes, print, table};

pub fn targets(as_json: bool) -> Answer {
    if as_json {
        let boards = boards().map(|board| {
            json!({
                "name": board.name, "title": board.title, "triple": board.triple,
                "cpu": board.cpu, "features": board.features,
                "kernels": board.kernels.name(), "cores": board.cores, "ram": board.ram,
                "flash": board.flash, "arena": board.arena, "runner": board.runner.name(),
                "emulator": board.emulator, "notes": board.notes,
            })
        });
        output::json(&boards.collect());
        return Answer::Yes;
    }
    let size = |size: Option<u64>| size.map(bytes).unwrap_or_default();
    let rows = boards().map(|board| {
        let Board { name, title, triple, kernels, cores, ram, flash, arena, .. } = board;
        [
            name,
            title,
            triple,
            kernels.to_string(),
            cores.to_string(),
            bytes(ram),
            size(flash),
            size(arena),
        ]
    });
    let head = ["target", "board", "triple", "kernels", "cores", "memory", "flash", "arena"];
    print(&table(head, rows));
    Answer::Yes
}
