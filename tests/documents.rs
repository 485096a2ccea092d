//! The table of features in README.md is that of docs/FEATURES.md, and each of its cells names a source.

use std::collections::BTreeMap;
use std::path::Path;

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The cells of the rows of the table that has this header, without the header and the line below it.
fn table<'a>(text: &'a str, header: &str) -> Vec<Vec<&'a str>> {
    let rows = text.lines().skip_while(|line| !line.starts_with(header)).skip(2);
    let rows = rows.take_while(|line| line.starts_with('|'));
    let cells = |row: &'a str| row.trim_matches('|').split('|').map(str::trim).collect();
    rows.map(cells).collect()
}

/// Where each tag leads: the lines `[W1]: tests/engine.rs`.
fn definitions(text: &str) -> BTreeMap<&str, &str> {
    let lines = text
        .lines()
        .filter_map(|line| line.strip_prefix('[')?.split_once("]: "));
    lines.collect()
}

/// The tags of a cell: `W1` and `W2` of `Y: any [W1] [W2]`, and `W1` of `[Y][W1]`.
fn tags(cell: &str) -> Vec<&str> {
    let brackets = cell.split('[').skip(1).map(|rest| rest.split(']').next().unwrap());
    brackets
        .filter(|text| text.ends_with(|c: char| c.is_ascii_digit()))
        .collect()
}

/// `Y` of `Y: any [W1]` and of `[Y][W1]`.
fn verdict(cell: &str) -> &str {
    &cell.trim_start_matches('[')[..1]
}

const HEADER: &str = "| | this crate | FlashAttention |";

#[test]
fn the_tables_agree_and_every_cell_has_a_source() {
    let (readme, features) = (read("README.md"), read("docs/FEATURES.md"));
    let (short, long) = (table(&readme, HEADER), table(&features, HEADER));
    assert!(long.len() > 25, "{} rows", long.len());
    assert_eq!(short.len(), long.len());
    let (short_sources, sources) = (definitions(&readme), definitions(&features));
    let mut used = BTreeMap::new();
    for (short, long) in short.iter().zip(&long) {
        assert_eq!((short.len(), long.len()), (8, 8), "{long:?}");
        assert_eq!(short[0], long[0]);
        for (short, long) in short[1..].iter().zip(&long[1..]) {
            assert_eq!(verdict(short), verdict(long), "{short} and {long}");
            assert!("YMUPN?".contains(verdict(long)), "{long}");
            assert_eq!(tags(long).is_empty(), verdict(long) == "?", "{long}");
            assert_eq!(tags(short).first(), tags(long).first(), "{short} and {long}");
            for tag in tags(long) {
                let leads_to = sources.get(tag).unwrap_or_else(|| panic!("{tag} leads nowhere"));
                used.insert(tag, *leads_to);
            }
        }
    }
    assert_eq!(used, sources, "of docs/FEATURES.md");
    for (tag, leads_to) in short_sources {
        assert_eq!(
            sources.get(tag).map(|path| path.trim_start_matches("../")),
            Some(leads_to)
        );
    }
}

#[test]
fn sources_are_listed_and_ours_exist() {
    let features = read("docs/FEATURES.md");
    for (tag, leads_to) in definitions(&features) {
        assert!(features.contains(&format!("- [{tag}] ")), "{tag} is not in the list");
        match leads_to.strip_prefix("../") {
            Some(ours) => assert!(!read(ours).is_empty(), "{ours}"),
            None => assert!(leads_to.starts_with("https://"), "{leads_to}"),
        }
    }
}
