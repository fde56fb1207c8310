//! Draws a text as a QR code (ISO/IEC 18004): as SVG for pages, as letters for terminals.
//!
//! Always dark on light with four modules of quiet around it, because that is what every camera reads.

use std::fmt::Write;

use qrcode::{Color, EcLevel, QrCode};

/// Modules of quiet on each side (ISO/IEC 18004 section 9.1).
const QUIET: usize = 4;

/// How a code may be drawn with letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// Black on white by escape sequences, whatever the terminal's own colours are.
    Colour,
    /// Without escape sequences, for light letters on a dark ground: what is light is drawn.
    Plain,
}

/// The modules of a code with its quiet zone: `true` is dark.
struct Modules {
    dark: Vec<bool>,
    width: usize,
}

impl Modules {
    /// `None` when the text is too long for any code (2953 bytes with the least correction).
    fn of(text: &str, correction: EcLevel) -> Option<Self> {
        let code = QrCode::with_error_correction_level(text, correction).ok()?;
        let width = code.width() + 2 * QUIET;
        let mut dark = vec![false; width * width];
        let (inner, colours) = (code.width(), code.into_colors());
        for (row, colours) in colours.chunks(inner).enumerate() {
            let start = (row + QUIET) * width + QUIET;
            for (module, colour) in dark.iter_mut().skip(start).zip(colours) {
                *module = *colour == Color::Dark;
            }
        }
        Some(Self { dark, width })
    }

    fn rows(&self) -> std::slice::Chunks<'_, bool> {
        self.dark.chunks(self.width)
    }
}

/// The text as an SVG without a size of its own: a white square with one dark path, a unit per module.
/// `None` when the text is too long.
pub fn svg(text: &str, title: &str) -> Option<String> {
    let modules = Modules::of(text, EcLevel::M)?;
    let width = modules.width;
    let mut path = String::new();
    for (y, row) in modules.rows().enumerate() {
        let mut x = 0;
        for run in row.chunk_by(|a, b| a == b) {
            if run.first() == Some(&true) {
                write!(path, "M{x} {y}h{length}v1h-{length}z", length = run.len()).expect("a string takes everything");
            }
            x += run.len();
        }
    }
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    Some(format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {width}" role="img" shape-rendering="crispEdges"><title>{title}</title><path fill="#fff" d="M0 0h{width}v{width}H0z"/><path fill="#000" d="{path}"/></svg>"##
    ))
}

/// The text as lines of half blocks, two rows of modules in each. The least correction, so that it fits in most windows: a
/// screen has no stains. `None` when the text is too long.
pub fn letters(text: &str, ink: Ink) -> Option<String> {
    let modules = Modules::of(text, EcLevel::L)?;
    let light = vec![false; modules.width];
    let rows: Vec<&[bool]> = modules.rows().collect();
    let mut drawn = String::new();
    for pair in rows.chunks(2) {
        let (upper, lower) = (pair.first().copied().unwrap_or(&light), pair.get(1).copied().unwrap_or(&light));
        let line: String = upper.iter().zip(lower).map(|(upper, lower)| half_blocks(*upper, *lower, ink)).collect();
        match ink {
            // The black and white of the colour cube: the first sixteen colours are what a theme makes of them.
            Ink::Colour => writeln!(drawn, "\x1b[38;5;16;48;5;231m{line}\x1b[0m"),
            Ink::Plain => writeln!(drawn, "{line}"),
        }
        .expect("a string takes everything");
    }
    Some(drawn)
}

fn half_blocks(upper_dark: bool, lower_dark: bool, ink: Ink) -> char {
    let (upper, lower) = match ink {
        Ink::Colour => (upper_dark, lower_dark),
        Ink::Plain => (!upper_dark, !lower_dark),
    };
    match (upper, lower) {
        (false, false) => ' ',
        (true, false) => '▀',
        (false, true) => '▄',
        (true, true) => '█',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const URL: &str = "http://192.168.178.123:3001/p#v1.k3v9abcdefghijkl.AbCdEfGhIjKlMnOpQrStUv.ZyXwVuTsRqPoNmLkJiHgFe";

    /// Reads a code with another program's eyes: `pixels` by row, 0 is black; each becomes a square of four by four.
    fn seen(pixels: &[Vec<u8>]) -> Vec<String> {
        let (width, height) = (pixels[0].len() * 4, pixels.len() * 4);
        let mut picture = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| pixels[y / 4][x / 4]);
        picture.detect_grids().iter().map(|grid| grid.decode().expect("decoded").1).collect()
    }

    /// What a terminal shows of letters, two rows for each line, with `ink` where a block is.
    fn shown(lines: &[&str], ink: u8, ground: u8) -> Vec<Vec<u8>> {
        let half = |line: &&str, full: [char; 2]| line.chars().map(|c| if full.contains(&c) { ink } else { ground }).collect();
        lines.iter().flat_map(|line| [half(line, ['▀', '█']), half(line, ['▄', '█'])]).collect()
    }

    #[test]
    fn a_camera_reads_the_terminal() {
        let plain = letters(URL, Ink::Plain).expect("fits");
        let lines: Vec<&str> = plain.lines().collect();
        assert_eq!(seen(&shown(&lines, 255, 0)), [URL]);

        let coloured = letters(URL, Ink::Colour).expect("fits");
        let stripped: Vec<&str> = coloured
            .lines()
            .map(|line| {
                line.strip_prefix("\x1b[38;5;16;48;5;231m").and_then(|line| line.strip_suffix("\x1b[0m")).expect("coloured by line")
            })
            .collect();
        assert_eq!(seen(&shown(&stripped, 0, 255)), [URL]);
        let (width, height) = (lines[0].chars().count(), lines.len());
        assert!(width <= 80 && height <= 25, "{width} x {height}");
        assert!(lines.iter().all(|line| line.chars().count() == width));
    }

    #[test]
    fn a_camera_reads_the_picture() {
        let svg = svg(URL, "a < b & c").expect("fits");
        assert!(svg.contains("<title>a &lt; b &amp; c</title>"), "{svg}");
        let size: usize = svg.split("viewBox=\"0 0 ").nth(1).and_then(|rest| rest.split(' ').next()?.parse().ok()).expect("a size");
        let path = svg.rsplit("d=\"").next().and_then(|rest| rest.split('"').next()).expect("a path");
        let mut pixels = vec![vec![255; size]; size];
        for run in path.split_terminator('z') {
            let numbers: Vec<usize> = run.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
            let [x, y, length, 1, back] = numbers[..] else { panic!("{run}") };
            assert_eq!(length, back);
            pixels[y][x..x + length].fill(0);
        }
        assert_eq!(seen(&pixels), [URL]);
        let quiet = |pixel: (usize, &Vec<u8>)| (QUIET..size - QUIET).contains(&pixel.0);
        for (y, row) in pixels.iter().enumerate() {
            let first = row.iter().position(|pixel| *pixel == 0);
            assert!(first.is_none_or(|x| x >= QUIET && quiet((y, row))), "{y}");
        }
    }

    #[test]
    fn every_address_fits_a_window() {
        let long = URL.replace("192.168.178.123", "[fd12:3456:789a:bcde:f012:3456:789a:bcde]");
        for text in [URL, &long] {
            let lines = letters(text, Ink::Plain).expect("fits");
            assert!(lines.lines().all(|line| line.chars().count() <= 60) && lines.lines().count() <= 30);
        }
        assert_eq!((svg(&"x".repeat(5000), ""), letters(&"x".repeat(5000), Ink::Plain)), (None, None));
    }
}
