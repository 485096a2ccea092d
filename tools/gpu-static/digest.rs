//! A number for a kernel's text that changes with its code and not with its comments.

/// 64 bits of a text without its comments, and with single spaces: FNV-1a.
pub fn digest(text: &str) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in code(text)
        .split_whitespace()
        .flat_map(|word| word.bytes().chain([b' ']))
    {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

/// The text with a space for each comment.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("//").into_iter().chain(rest.find("/*")).min() {
        code.push_str(&rest[..at]);
        code.push(' ');
        let comment = &rest[at..];
        let end = if comment.starts_with("//") {
            comment.find('\n')
        } else {
            comment.find("*/").map(|end| end + 2)
        };
        rest = end.map_or("", |end| &comment[end..]);
    }
    code + rest
}

#[cfg(test)]
mod tests {
    use super::digest;

    #[test]
    fn comments_and_spaces_do_not_count() {
        let text = "fn f() { // what it does\n    return; /* twice\n over */ }\n";
        assert_eq!(digest(text), digest("fn f() {\n\treturn; }"));
        assert_eq!(digest("a // b"), digest("a"));
        assert_ne!(digest(text), digest("fn f() {}"));
        assert_ne!(digest("a / b"), digest("a"));
        // What a comment parts stays apart.
        assert_ne!(digest("a/**/b"), digest("ab"));
    }
}
