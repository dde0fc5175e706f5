//! Python list literals, as pandas leaves them in CSV cells: `['a', "b's"]`, `[1, 2]`.

/// An element of a list.
#[derive(Clone, Debug, PartialEq)]
pub enum Element {
    /// A string.
    Text(String),
    /// An integer.
    Int(i64),
}

/// What is wrong with a literal, and where: a character position from 1.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{problem} at character {position}")]
pub struct LiteralError {
    problem: String,
    position: usize,
}

/// Parses a list of strings and integers.
pub fn parse_list(text: &str) -> Result<Vec<Element>, LiteralError> {
    Parser { chars: text.chars().collect(), at: 0 }.list()
}

/// Parses a list of strings.
pub fn parse_strings(text: &str) -> Result<Vec<String>, LiteralError> {
    let string = |(i, element)| match element {
        Element::Text(text) => Ok(text),
        Element::Int(n) => {
            Err(LiteralError { problem: format!("element {} is the number {n}, not a string", i + 1), position: 1 })
        }
    };
    parse_list(text)?.into_iter().enumerate().map(string).collect()
}

/// Writes a list of strings as Python's `repr` does.
pub fn repr_strings<S: AsRef<str>>(items: &[S]) -> String {
    let quoted: Vec<String> = items.iter().map(|s| repr(s.as_ref())).collect();
    format!("[{}]", quoted.join(", "))
}

fn repr(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut out = String::from(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => {
                out.push('\\');
                out.push(c);
            }
            c if (c as u32) < 0x20 || c as u32 == 0x7f => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push(quote);
    out
}

struct Parser {
    chars: Vec<char>,
    at: usize,
}

impl Parser {
    fn fail<T>(&self, problem: impl Into<String>) -> Result<T, LiteralError> {
        Err(LiteralError { problem: problem.into(), position: self.at + 1 })
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek();
        self.at += usize::from(c.is_some());
        c
    }

    fn skip_blanks(&mut self) {
        while self.peek().is_some_and(char::is_whitespace) {
            self.at += 1;
        }
    }

    fn list(&mut self) -> Result<Vec<Element>, LiteralError> {
        self.skip_blanks();
        if self.peek() != Some('[') {
            return self.fail("expected a list starting with '['");
        }
        self.at += 1;
        let mut items = Vec::new();
        loop {
            self.skip_blanks();
            match self.peek() {
                Some(']') => break,
                None => return self.fail("the list is not closed with ']'"),
                _ => items.push(self.element()?),
            }
            self.skip_blanks();
            match self.peek() {
                Some(',') => self.at += 1,
                Some(']') => break,
                None => return self.fail("the list is not closed with ']'"),
                Some(c) => return self.fail(format!("expected ',' or ']', found {c:?}")),
            }
        }
        self.at += 1;
        self.skip_blanks();
        match self.peek() {
            None => Ok(items),
            Some(c) => self.fail(format!("{c:?} follows the list")),
        }
    }

    fn element(&mut self) -> Result<Element, LiteralError> {
        match self.peek() {
            Some(quote @ ('\'' | '"')) => {
                self.at += 1;
                self.string(quote).map(Element::Text)
            }
            Some('-' | '+' | '0'..='9') => self.integer(),
            Some(c) => self.fail(format!("expected a string or a number, found {c:?}")),
            None => self.fail("the list is not closed with ']'"),
        }
    }

    fn integer(&mut self) -> Result<Element, LiteralError> {
        let start = self.at;
        self.at += 1;
        while self.peek().is_some_and(|c| c.is_ascii_digit() || c == '_') {
            self.at += 1;
        }
        let text: String = self.chars[start..self.at].iter().filter(|c| **c != '_').collect();
        match text.parse() {
            Ok(n) => Ok(Element::Int(n)),
            Err(_) => self.fail(format!("{text:?} is not an integer")),
        }
    }

    fn string(&mut self, quote: char) -> Result<String, LiteralError> {
        let mut out = String::new();
        loop {
            match self.next() {
                Some(c) if c == quote => return Ok(out),
                Some('\\') => self.escape(&mut out)?,
                Some('\n') | None => return self.fail("a string is not closed"),
                Some(c) => out.push(c),
            }
        }
    }

    fn escape(&mut self, out: &mut String) -> Result<(), LiteralError> {
        let Some(c) = self.next() else { return self.fail("a string is not closed") };
        match c {
            '\n' => {}
            '\\' | '\'' | '"' => out.push(c),
            'n' => out.push('\n'),
            't' => out.push('\t'),
            'r' => out.push('\r'),
            'a' => out.push('\x07'),
            'b' => out.push('\x08'),
            'f' => out.push('\x0c'),
            'v' => out.push('\x0b'),
            'x' => out.push(self.code(16, 2, 2)?),
            'u' => out.push(self.code(16, 4, 4)?),
            'U' => out.push(self.code(16, 8, 8)?),
            '0'..='7' => {
                self.at -= 1;
                out.push(self.code(8, 1, 3)?);
            }
            // Python keeps escapes that it does not know
            other => out.extend(['\\', other]),
        }
        Ok(())
    }

    fn code(&mut self, radix: u32, min: usize, max: usize) -> Result<char, LiteralError> {
        let mut value = 0;
        let mut digits = 0;
        while digits < max {
            let Some(digit) = self.peek().and_then(|c| c.to_digit(radix)) else { break };
            value = value * radix + digit;
            digits += 1;
            self.at += 1;
        }
        match char::from_u32(value) {
            Some(c) if digits >= min => Ok(c),
            _ => self.fail("an escape is not a character"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_strings_and_integers() {
        let texts = |items: &[&str]| Ok(items.iter().map(|s| (*s).to_owned()).collect());
        assert_eq!(parse_strings("['a', \"b's\", 'c\"d\\'e']"), texts(&["a", "b's", "c\"d'e"]));
        assert_eq!(parse_strings(r"['\\ \n\t\x41\u00e9\U0001F600\101 \d']"), texts(&["\\ \n\tAé😀A \\d"]));
        assert_eq!(parse_strings(" [ 'a' , ] "), texts(&["a"]));
        assert_eq!(parse_strings("[]"), texts(&[]));
        assert_eq!(parse_list("[1, -2]"), Ok(vec![Element::Int(1), Element::Int(-2)]));
    }

    #[test]
    fn broken_lists_say_where() {
        for (text, problem) in [
            ("['a', 'b'", "not closed with ']'"),
            ("['a' 'b']", "expected ',' or ']'"),
            ("['a", "a string is not closed"),
            ("nan", "expected a list"),
            ("[a]", "expected a string or a number"),
            ("['a'] x", "follows the list"),
            (r"['\x4']", "an escape is not a character"),
            ("", "expected a list"),
        ] {
            let error = parse_strings(text).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains("at character"), "{text}: {error}");
        }
        assert!(parse_strings("[1]").is_err());
    }

    #[test]
    fn repr_is_read_back() {
        let items = ["plain", "it's", "a \"quote\"", "both ' and \"", "back\\slash\ttab", "\x01"];
        let text = repr_strings(&items);
        assert!(text.starts_with("['plain', \"it's\", 'a \"quote\"', 'both \\' and \"', "));
        assert_eq!(parse_strings(&text).unwrap(), items);
    }
}
