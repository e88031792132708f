//! Tables like kubectl's: no borders, and columns of less weight go first when the terminal is narrow.

use comfy_table::{CellAlignment, ContentArrangement};

use super::{Tone, paint};

/// Blank columns between two columns.
const GAP: usize = 2;

/// One column.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    title: &'static str,
    right: bool,
    /// 0: always shown. Otherwise left out in a narrow terminal, the highest first.
    rank: u8,
}

impl Column {
    /// A column of texts.
    pub(crate) const fn text(title: &'static str) -> Self {
        Self { title, right: false, rank: 0 }
    }

    /// A column of numbers, aligned to the right.
    pub(crate) const fn number(title: &'static str) -> Self {
        Self { title, right: true, rank: 0 }
    }

    /// May be left out; the highest rank goes first.
    pub(crate) const fn rank(self, rank: u8) -> Self {
        Self { rank, ..self }
    }
}

/// One cell.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

impl Cell {
    /// A cell with a tone.
    pub(crate) fn toned(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

impl From<String> for Cell {
    fn from(text: String) -> Self {
        Self { text, tone: Tone::Plain }
    }
}

impl From<&str> for Cell {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

/// A table.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

impl Table {
    /// A table without rows.
    pub(crate) fn new(columns: &[Column]) -> Self {
        Self { columns: columns.to_vec(), rows: Vec::new() }
    }

    /// Adds a row: one cell a column. An empty cell is shown as "-".
    pub(crate) fn row<const N: usize>(&mut self, cells: [Cell; N]) {
        let plain = |cell: Cell| {
            let text = if cell.text.is_empty() { "-".to_owned() } else { plain(&cell.text) };
            Cell { text, tone: cell.tone }
        };
        self.rows.push(cells.into_iter().map(plain).collect());
    }

    /// True when it has no rows.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The text, for a terminal of `width` columns (None: as wide as it gets).
    pub(crate) fn render(&self, width: Option<usize>, color: bool) -> String {
        let (shown, widths) = self.fit(width);
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(shown.iter().filter_map(|&i| self.columns.get(i)).map(|column| column.title));
        for row in &self.rows {
            table.add_row(shown.iter().filter_map(|&i| row.get(i)).map(|cell| cell.text.as_str()));
        }
        for (at, &index) in shown.iter().enumerate() {
            if let Some(column) = table.column_mut(at) {
                let last = at + 1 == shown.len();
                column.set_padding((0, if last { 0 } else { GAP as u16 }));
                if self.columns.get(index).is_some_and(|column| column.right) {
                    column.set_cell_alignment(CellAlignment::Right);
                }
            }
        }
        let mut text = String::new();
        for (number, line) in table.lines().enumerate() {
            let tones: Vec<Tone> = match number.checked_sub(1).and_then(|row| self.rows.get(row)) {
                Some(row) => shown.iter().filter_map(|&i| row.get(i)).map(|cell| cell.tone).collect(),
                None => vec![Tone::Bold; shown.len()],
            };
            text.push_str(colored(&line, &widths, &tones, color).trim_end());
            text.push('\n');
        }
        text
    }

    /// Which columns are shown, and how wide each is.
    fn fit(&self, width: Option<usize>) -> (Vec<usize>, Vec<usize>) {
        let widest = |index: usize| {
            let cells =
                self.rows.iter().filter_map(|row| row.get(index)).map(|cell| cell.text.chars().count());
            let title = self.columns.get(index).map_or(0, |column| column.title.len());
            cells.chain([title]).max().unwrap_or(0)
        };
        let mut shown: Vec<(usize, usize)> =
            (0..self.columns.len()).map(|index| (index, widest(index))).collect();
        let rank = |index: usize| self.columns.get(index).map_or(0, |column| column.rank);
        while let Some(width) = width {
            let total = shown.iter().map(|(_, w)| w + GAP).sum::<usize>().saturating_sub(GAP);
            let Some(at) = (0..shown.len()).max_by_key(|&at| shown.get(at).map(|(i, _)| (rank(*i), *i)))
            else {
                break;
            };
            if total <= width || shown.get(at).is_none_or(|(index, _)| rank(*index) == 0) {
                break;
            }
            shown.remove(at);
        }
        shown.into_iter().unzip()
    }
}

/// Colours the cells of a line that is laid out already, so that escapes do not count as width.
fn colored(line: &str, widths: &[usize], tones: &[Tone], color: bool) -> String {
    // Where characters are not one column wide each, the places of the cells are not known.
    if !color || !line.is_ascii() {
        return line.to_owned();
    }
    let mut rest = line;
    let mut text = String::new();
    for (width, tone) in widths.iter().zip(tones) {
        let (cell, after) = rest.split_at((width + GAP).min(rest.len()));
        let word = cell.trim();
        let start = cell.len() - cell.trim_start().len();
        text.push_str(&cell[..start]);
        text.push_str(&paint(true, *tone, word));
        text.push_str(&cell[start + word.len()..]);
        rest = after;
    }
    text + rest
}

/// A text without control characters: names and messages come from files and from the network, and must not be able
/// to steer the terminal.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// Lines "Name:  value" with the values aligned. A value of several lines keeps its indent.
pub(crate) fn fields(indent: usize, fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len() + 1).max().unwrap_or(0) + GAP;
    let mut text = String::new();
    for (name, value) in fields {
        let mut lines = value.lines();
        let first = plain(lines.next().unwrap_or("-"));
        text.push_str(&format!("{:indent$}{:width$}{first}\n", "", format!("{name}:")));
        for line in lines {
            text.push_str(&format!("{:indent$}{:width$}{}\n", "", "", plain(line)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::new(&[
            Column::text("NAME"),
            Column::number("RPS").rank(1),
            Column::text("NOTE").rank(2),
            Column::number("P99"),
        ]);
        table.row(["cart".into(), "12.5".into(), "".into(), "3.1ms".into()]);
        table.row(["storefront".into(), "7".into(), "fine".into(), Cell::toned("120ms", Tone::Bad)]);
        table
    }

    fn check(width: Option<usize>, expected: &[&str]) {
        assert_eq!(sample().render(width, false).lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn aligns_without_borders() {
        check(
            None,
            &[
                "NAME         RPS  NOTE    P99",
                "cart        12.5  -     3.1ms",
                "storefront     7  fine  120ms",
            ],
        );
    }

    #[test]
    fn narrow_terminals_lose_the_highest_rank_first() {
        check(
            Some(29),
            &[
                "NAME         RPS  NOTE    P99",
                "cart        12.5  -     3.1ms",
                "storefront     7  fine  120ms",
            ],
        );
        check(Some(28), &["NAME         RPS    P99", "cart        12.5  3.1ms", "storefront     7  120ms"]);
        check(Some(10), &["NAME          P99", "cart        3.1ms", "storefront  120ms"]);
    }

    #[test]
    fn colours_do_not_move_columns() {
        let text = sample().render(None, true);
        assert!(text.contains("storefront     7  fine  \x1b[31m120ms\x1b[0m\n"), "{text:?}");
        assert!(text.starts_with("\x1b[1mNAME\x1b[0m         \x1b[1mRPS\x1b[0m"), "{text:?}");
    }

    #[test]
    fn names_cannot_steer_the_terminal() {
        let mut table = Table::new(&[Column::text("NAME")]);
        table.row(["a\x1b[2Jb\nc".into()]);
        assert_eq!(table.render(None, false), "NAME\na\u{fffd}[2Jb\u{fffd}c\n");
        assert_eq!(fields(0, &[("Name", "a\x1b[2J\nb".into())]), "Name:  a\u{fffd}[2J\n       b\n");
    }
}
