//! Redis' messages (RESP).

/// The length of the first value, once it is complete.
pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
    let line = bytes.windows(2).position(|pair| pair == b"\r\n")? + 2;
    // Nothing has a negative length.
    let count = number(&bytes[1..line - 2]);
    let mut end = line;
    match (bytes[0], count) {
        (b'$' | b'=' | b'!', Some(count)) => end += count + 2,
        (kind @ (b'*' | b'~' | b'>' | b'%'), Some(count)) => {
            let values = if kind == b'%' { 2 * count } else { count };
            for _ in 0..values {
                end += length(bytes.get(end..)?)?;
            }
        }
        _ => {}
    }
    (end <= bytes.len()).then_some(end)
}

fn number(digits: &[u8]) -> Option<usize> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// A command as a client sends it.
pub(crate) fn command(words: &[&str]) -> Vec<u8> {
    let words = words
        .iter()
        .map(|word| format!("${}\r\n{word}\r\n", word.len()));
    let words: Vec<String> = words.collect();
    format!("*{}\r\n{}", words.len(), words.concat()).into_bytes()
}

/// The command's name.
pub(crate) fn name(command: &[u8]) -> String {
    let mut lines = command.split(|&byte| byte == b'\n');
    let name = lines.nth(2).unwrap_or_default().trim_ascii();
    String::from_utf8_lossy(name).to_ascii_uppercase()
}

/// An answer as text, the elements of an array line by line; or the error that it is.
pub(crate) fn text(answer: &[u8]) -> Result<String, String> {
    let line = answer.windows(2).position(|pair| pair == b"\r\n");
    let (head, mut body) = answer.split_at(line.unwrap() + 2);
    let read = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let value = read(head[1..].trim_ascii_end());
    match head[0] {
        b'-' => Err(value),
        b'$' => Ok(read(body.strip_suffix(b"\r\n").unwrap_or_default())),
        b'*' => {
            let mut elements = Vec::new();
            while let Some(length) = length(body) {
                elements.push(text(&body[..length])?);
                body = &body[length..];
            }
            Ok(elements.join("\n"))
        }
        _ => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_ends_where_its_last_value_does() {
        for whole in [
            "+OK\r\n",
            "$-1\r\n",
            "$2\r\n\r\n\r\n",
            "*-1\r\n",
            "*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
            "%1\r\n+a\r\n#t\r\n",
        ] {
            let two = [whole, "+next\r\n"].concat();
            assert_eq!(length(two.as_bytes()), Some(whole.len()), "{whole:?}");
            for end in 0..whole.len() {
                assert_eq!(length(&whole.as_bytes()[..end]), None, "{whole:?} to {end}");
            }
        }
    }

    #[test]
    fn an_answer_is_read_as_text() {
        for (answer, expected) in [
            ("+OK\r\n", Ok("OK")),
            ("-READONLY no\r\n", Err("READONLY no")),
            ("$-1\r\n", Ok("")),
            ("$0\r\n\r\n", Ok("")),
            ("$4\r\na\r\nb\r\n", Ok("a\r\nb")),
            ("*2\r\n$1\r\na\r\n:2\r\n", Ok("a\n2")),
            ("*0\r\n", Ok("")),
        ] {
            let read = text(answer.as_bytes());
            assert_eq!(read.as_deref().map_err(String::as_str), expected);
        }
        assert_eq!(name(&command(&["get", "cup"])), "GET");
    }
}
