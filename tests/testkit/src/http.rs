//! Messages of HTTP/1.1.

/// The length of the first message, once it is complete. What has no length of its own ends with its connection.
pub(crate) fn length(bytes: &[u8], is_answer: bool) -> Option<usize> {
    let head = head(bytes)?;
    let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
    let field = |name: &str| field(&text, name).map(str::to_owned);
    if field("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        return chunked(bytes, head);
    }
    let has_no_body = text.starts_with("http/1.1 204") || text.starts_with("http/1.1 304");
    let body = match field("content-length") {
        Some(length) => length.parse().unwrap(),
        None if is_answer && !has_no_body => return None,
        None => 0,
    };
    let end = head + body;
    (end <= bytes.len()).then_some(end)
}

/// Where the body begins.
pub(crate) fn head(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(end + 4)
}

fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let found = fields.find(|(field, _)| field.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.trim())
}

fn chunked(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let rest = bytes.get(at..)?;
        let line = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = String::from_utf8_lossy(&rest[..line]);
        let size = size.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).unwrap();
        at += line + 2;
        if size == 0 {
            // Trailers, if there are any, and an empty line.
            let trailers = &bytes[at - 2..];
            return head(trailers).map(|end| at - 2 + end);
        }
        at += size + 2;
    }
}

/// A request.
#[derive(Debug)]
pub struct Request {
    head: String,
    /// As it came.
    pub body: Vec<u8>,
}

impl Request {
    pub(crate) fn read(message: &[u8]) -> Self {
        let (head, body) = message.split_at(head(message).unwrap_or(message.len()));
        Self {
            head: String::from_utf8_lossy(head).into_owned(),
            body: body.to_vec(),
        }
    }

    /// A field of the head.
    pub fn field(&self, name: &str) -> Option<&str> {
        field(&self.head, name)
    }
}

/// A whole answer.
pub(crate) fn answer(status: u16, content_type: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status} \r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
    );
    [head, body.to_owned()].concat().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_ends_where_its_body_does() {
        for (whole, is_answer) in [
            ("GET / HTTP/1.1\r\nhost: a\r\n\r\n", false),
            ("PUT / HTTP/1.1\r\nContent-Length: 4\r\n\r\n\r\n\r\n", false),
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
                true,
            ),
            (
                "PUT / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nA;x=y\r\n0123456789\r\n0\r\na: b\r\n\r\n",
                false,
            ),
        ] {
            let two = [whole, "HTTP/1.1 200 OK\r\n\r\n"].concat();
            let found = length(two.as_bytes(), is_answer);
            assert_eq!(found, Some(whole.len()), "{whole:?}");
            for end in 0..whole.len() {
                let part = &whole.as_bytes()[..end];
                assert_eq!(length(part, is_answer), None, "{whole:?} to {end}");
            }
        }
        let until_the_end = b"HTTP/1.1 200 OK\r\n\r\nabc";
        assert_eq!(length(until_the_end, true), None);
    }
}
