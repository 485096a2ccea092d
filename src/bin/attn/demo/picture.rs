//! Heat maps as a PNG.

use std::io::Cursor;

use font8x8::UnicodeFonts as _;
use image::{ImageFormat, Rgb, RgbImage};

use super::map::{Map, colour};

const BACKGROUND: Rgb<u8> = Rgb([255, 255, 255]);
const INK: Rgb<u8> = Rgb([40, 40, 48]);
const FAINT: Rgb<u8> = Rgb([120, 120, 130]);

/// Sizes in pixels.
struct Measure {
    cell: u32,
    /// Pixels of one dot of the 8 x 8 font.
    dot: u32,
    margin: u32,
}

/// One map large, or several in rows of four, with a title and a scale.
pub fn png(title: &str, maps: &[Map<'_>]) -> anyhow::Result<Vec<u8>> {
    let measure = if maps.len() == 1 {
        Measure {
            cell: 56,
            dot: 2,
            margin: 28,
        }
    } else {
        Measure {
            cell: 22,
            dot: 1,
            margin: 22,
        }
    };
    let columns = maps.len().clamp(1, 4) as u32;
    let rows = (maps.len() as u32).div_ceil(columns);
    let (width, height) = maps.first().map_or((0, 0), |map| measure.map_size(map));
    let header = 2 * measure.margin + 16;
    let footer = measure.margin + 40;
    let total_width =
        (columns * (width + measure.margin) + measure.margin).max(16 * title.len() as u32 + 2 * measure.margin);
    let total_height = header + rows * (height + measure.margin) + footer;
    let mut picture = RgbImage::from_pixel(total_width, total_height, BACKGROUND);
    text(&mut picture, [measure.margin, measure.margin], title, 2, INK);
    for (index, map) in maps.iter().enumerate() {
        let (column, row) = (index as u32 % columns, index as u32 / columns);
        let origin = [
            measure.margin + column * (width + measure.margin),
            header + row * (height + measure.margin),
        ];
        measure.draw(&mut picture, origin, map);
    }
    let left = measure.margin;
    scale(&mut picture, [left, total_height - footer]);
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png)?;
    Ok(bytes.into_inner())
}

impl Measure {
    fn label(&self, map: &Map<'_>) -> u32 {
        map.tokens
            .iter()
            .map(|token| token.chars().count() as u32)
            .max()
            .unwrap_or(0)
            * 8
            * self.dot
            + 8
    }

    fn title(&self) -> u32 {
        8 * self.dot + 10
    }

    fn map_size(&self, map: &Map<'_>) -> (u32, u32) {
        let cells = self.cell * map.tokens.len() as u32;
        (self.label(map) + cells, self.title() + self.label(map) + cells)
    }

    fn draw(&self, picture: &mut RgbImage, [left, top]: [u32; 2], map: &Map<'_>) {
        let label = self.label(map);
        let size = 8 * self.dot;
        text(picture, [left + label, top], &map.title, self.dot, FAINT);
        let (x0, y0) = (left + label, top + self.title() + label);
        for (index, token) in map.tokens.iter().enumerate() {
            let middle = index as u32 * self.cell + (self.cell - size) / 2;
            let length = token.chars().count() as u32 * size;
            text(picture, [x0 - 8 - length, y0 + middle], token, self.dot, INK);
            upward(picture, [x0 + middle, y0 - 8], token, self.dot, INK);
        }
        for row in 0..map.tokens.len() {
            for column in 0..map.tokens.len() {
                let weight = map.weight(row, column);
                let fill = colour(weight / map.largest());
                let corner = [x0 + column as u32 * self.cell, y0 + row as u32 * self.cell];
                rectangle(picture, corner, [self.cell - 1, self.cell - 1], Rgb(fill));
                if self.dot > 1 {
                    let percent = format!("{:.0}", weight * 100.0);
                    let length = percent.len() as u32 * size;
                    let light = 0.3 * f32::from(fill[0]) + 0.6 * f32::from(fill[1]) + 0.1 * f32::from(fill[2]) > 130.0;
                    let ink = if light { INK } else { BACKGROUND };
                    let at = [corner[0] + (self.cell - length) / 2, corner[1] + (self.cell - size) / 2];
                    text(picture, at, &percent, self.dot, ink);
                }
            }
        }
    }
}

/// The colours from nothing to the largest weight of a map, and how to read the axes.
fn scale(picture: &mut RgbImage, [left, top]: [u32; 2]) {
    const WIDTH: u32 = 160;
    for x in 0..WIDTH {
        rectangle(picture, [left + x, top], [1, 12], Rgb(colour(x as f32 / WIDTH as f32)));
    }
    text(
        picture,
        [left + WIDTH + 8, top + 2],
        "0 to the largest weight",
        1,
        FAINT,
    );
    text(
        picture,
        [left, top + 22],
        "row: the word that looks  column: the word it looks at",
        1,
        FAINT,
    );
}

fn rectangle(picture: &mut RgbImage, [left, top]: [u32; 2], [width, height]: [u32; 2], fill: Rgb<u8>) {
    for y in top..(top + height).min(picture.height()) {
        for x in left..(left + width).min(picture.width()) {
            picture.put_pixel(x, y, fill);
        }
    }
}

/// Calls `visit(x, y)` for each dot that is set, in the text's own direction.
fn dots(line: &str, mut visit: impl FnMut(u32, u32)) {
    for (index, character) in (0..).zip(line.chars()) {
        let glyph = font8x8::BASIC_FONTS
            .get(character)
            .or_else(|| font8x8::BASIC_FONTS.get('?'))
            .unwrap_or_default();
        for (y, row) in (0..).zip(glyph) {
            for x in (0..8).filter(|x| row >> x & 1 == 1) {
                visit(index * 8 + x, y);
            }
        }
    }
}

fn text(picture: &mut RgbImage, [left, top]: [u32; 2], line: &str, dot: u32, ink: Rgb<u8>) {
    dots(line, |x, y| {
        rectangle(picture, [left + x * dot, top + y * dot], [dot, dot], ink)
    });
}

/// Text that runs upward, ending above `bottom`.
fn upward(picture: &mut RgbImage, [left, bottom]: [u32; 2], line: &str, dot: u32, ink: Rgb<u8>) {
    dots(line, |x, y| {
        rectangle(
            picture,
            [left + y * dot, bottom.saturating_sub((x + 1) * dot)],
            [dot, dot],
            ink,
        );
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_the_maps_colours() {
        let tokens = ["a", "b"].map(str::to_owned);
        let map = |title: &str| Map {
            title: title.into(),
            tokens: &tokens,
            weights: vec![0.0, 1.0, 0.5, 0.5],
        };
        for maps in [
            vec![map("one")],
            (0..12).map(|head| map(&format!("head {head}"))).collect(),
        ] {
            let bytes = png("title", &maps).unwrap();
            let picture = image::load_from_memory(&bytes).unwrap().to_rgb8();
            let has = |wanted: [u8; 3]| picture.pixels().any(|pixel| pixel.0 == wanted);
            assert!(has(colour(0.0)) && has(colour(0.5)) && has(colour(1.0)));
        }
    }
}
