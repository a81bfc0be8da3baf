//! Timestamp spellings: RFC 3339, RFC 2822, the old Twitter form, and epoch seconds, milliseconds or microseconds.

use chrono::DateTime;

/// Magnitudes that tell the unit of an epoch number: 1e11 seconds is the year 5138, 1e11 milliseconds is 1973.
const SECONDS_BELOW: f64 = 1e11;
const MILLIS_BELOW: f64 = 1e14;
const MICROS_BELOW: f64 = 1e17;

/// Microseconds since the epoch from a number whose unit its magnitude tells; `None` beyond microseconds or if not finite.
///
/// ```
/// use tamiz_schemas::time::from_epoch;
/// assert_eq!(from_epoch(1_700_000_000.0), from_epoch(1_700_000_000_000.0));
/// ```
pub fn from_epoch(number: f64) -> Option<i64> {
    let scale = match number.abs() {
        n if n < SECONDS_BELOW => 1e6,
        n if n < MILLIS_BELOW => 1e3,
        n if n < MICROS_BELOW => 1.0,
        _ => return None,
    };
    Some((number * scale).round() as i64)
}

/// Microseconds since the epoch from text; `None` where no known spelling fits.
///
/// ```
/// use tamiz_schemas::time::parse;
/// assert_eq!(parse("2026-01-02T03:04:05Z"), parse("1767323045"));
/// assert_eq!(parse("yesterday"), None);
/// ```
pub fn parse(text: &str) -> Option<i64> {
    let text = text.trim();
    if let Ok(time) = DateTime::parse_from_rfc3339(text) {
        return Some(time.timestamp_micros());
    }
    if let Ok(number) = text.parse::<f64>() {
        return from_epoch(number);
    }
    let old_twitter = || DateTime::parse_from_str(text, "%a %b %d %H:%M:%S %z %Y").ok();
    let no_zone_colon = || DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z").ok();
    DateTime::parse_from_rfc2822(text)
        .ok()
        .or_else(old_twitter)
        .or_else(no_zone_colon)
        .map(|time| time.timestamp_micros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_one_moment_agrees() {
        let moment = 1_767_323_045_000_000;
        for text in [
            "2026-01-02T03:04:05Z",
            "2026-01-02T05:04:05+02:00",
            "2026-01-02 03:04:05+00:00",
            "2026-01-02T03:04:05.000+0000",
            "Fri, 02 Jan 2026 03:04:05 GMT",
            "Fri Jan 02 03:04:05 +0000 2026",
            "1767323045",
            "1767323045.0",
            "1767323045000",
            "1767323045000000",
        ] {
            assert_eq!(parse(text), Some(moment), "{text}");
        }
    }

    #[test]
    fn nonsense_is_none() {
        for text in ["", "now", "2026-13-01T00:00:00Z", "1e30", "NaN", "inf"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
