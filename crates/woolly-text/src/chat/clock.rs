//! The time that a template sees, and Python's `strftime` for it.
//!
//! Time zones and daylight saving are the caller's business: a template gets the numbers of a clock on the wall.

use std::time::{SystemTime, UNIX_EPOCH};

/// A date and time without a time zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LocalTime {
    year: i32,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

const SECONDS_PER_DAY: i64 = 86_400;
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
#[rustfmt::skip]
const MONTHS: [&str; 12] = [
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
];

impl LocalTime {
    /// The current time in UTC.
    pub fn now_utc() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::from_unix(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }

    /// The time `seconds` after the beginning of 1970; add the offset of the time zone before. Years beyond 9999 in
    /// either direction are cut off there.
    pub fn from_unix(seconds: i64) -> Self {
        const LIMIT: i64 = 7_900 * 366 * SECONDS_PER_DAY;
        let seconds = seconds.clamp(-LIMIT, LIMIT);
        let (year, month, day) = civil_from_days(seconds.div_euclid(SECONDS_PER_DAY));
        let of_day = seconds.rem_euclid(SECONDS_PER_DAY);
        let part = |divisor: i64, modulus: i64| (of_day / divisor % modulus) as u8;
        Self { year, month, day, hour: part(3600, 24), minute: part(60, 60), second: part(1, 60) }
    }

    fn days(self) -> i64 {
        days_from_civil(self.year, self.month, self.day)
    }

    fn weekday(self) -> usize {
        // 1970 began on a Thursday.
        (self.days() + 4).rem_euclid(7) as usize
    }

    fn day_of_year(self) -> i64 {
        self.days() - days_from_civil(self.year, 1, 1) + 1
    }

    /// Formats the time by Python's `strftime` codes in the C locale; an unknown code is kept as it stands.
    pub fn format(self, format: &str) -> String {
        let mut out = String::with_capacity(format.len() + 16);
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let rest = chars.as_str();
            match rest.strip_prefix('-').map(|unpadded| (unpadded, true)).unwrap_or((rest, false)) {
                (code, unpadded) if self.push_code(code.chars().next(), unpadded, &mut out) => {
                    chars = code.chars();
                    chars.next();
                }
                _ => out.push('%'),
            }
        }
        out
    }

    fn push_code(self, code: Option<char>, unpadded: bool, out: &mut String) -> bool {
        let weekday = WEEKDAYS.get(self.weekday()).copied().unwrap_or_default();
        let month = MONTHS.get(usize::from(self.month) - 1).copied().unwrap_or_default();
        let twelve = (self.hour + 11) % 12 + 1;
        let composed = |format: &str| self.format(format);
        let text = match code {
            Some('Y') => self.year.to_string(),
            Some('B') => month.to_owned(),
            Some('b' | 'h') => month.chars().take(3).collect(),
            Some('A') => weekday.to_owned(),
            Some('a') => weekday.chars().take(3).collect(),
            Some('p') => if self.hour < 12 { "AM" } else { "PM" }.to_owned(),
            Some('F') => composed("%Y-%m-%d"),
            Some('T' | 'X') => composed("%H:%M:%S"),
            Some('R') => composed("%H:%M"),
            Some('D' | 'x') => composed("%m/%d/%y"),
            Some('%') => "%".to_owned(),
            Some('Z' | 'z') => String::new(),
            Some('u') => if self.weekday() == 0 { 7 } else { self.weekday() }.to_string(),
            Some('w') => self.weekday().to_string(),
            Some(code) => {
                let (value, width) = match code {
                    'm' => (i64::from(self.month), 2),
                    'd' => (i64::from(self.day), 2),
                    'H' => (i64::from(self.hour), 2),
                    'I' => (i64::from(twelve), 2),
                    'M' => (i64::from(self.minute), 2),
                    'S' => (i64::from(self.second), 2),
                    'y' => (i64::from(self.year.rem_euclid(100)), 2),
                    'j' => (self.day_of_year(), 3),
                    'f' => (0, 6),
                    _ => return false,
                };
                if unpadded { value.to_string() } else { format!("{value:0width$}") }
            }
            None => return false,
        };
        out.push_str(&text);
        true
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar (Hinnant, "chrono-compatible low-level date algorithms").
fn days_from_civil(year: i32, month: u8, day: u8) -> i64 {
    let year = i64::from(year) - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let month_from_march = (i64::from(month) + 9) % 12;
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse of [`days_from_civil`].
fn civil_from_days(days: i64) -> (i32, u8, u8) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year as i32, month as u8, day as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        // The Unix times are from `date -u -d ... +%s`.
        let cases = [
            (0, "%Y-%m-%d %H:%M:%S %A", "1970-01-01 00:00:00 Thursday"),
            (1_721_984_887, "%d %b %Y, %I:%M %p, day %j", "26 Jul 2024, 09:08 AM, day 208"),
            (1_709_164_800, "%F %T %y %-m/%-d", "2024-02-29 00:00:00 24 2/29"),
            (-1, "%B %d, %Y %X", "December 31, 1969 23:59:59"),
            (951_782_400, "%D %a %%", "02/29/00 Tue %"),
            (0, "%Q %", "%Q %"),
        ];
        for (seconds, format, expected) in cases {
            assert_eq!(LocalTime::from_unix(seconds).format(format), expected);
        }
    }

    #[test]
    fn dates_and_days_are_inverse() {
        for days in (-1_000_000..1_000_000).step_by(997) {
            let (year, month, day) = civil_from_days(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }

    #[test]
    fn extreme_times_do_not_overflow() {
        for seconds in [i64::MIN, i64::MAX] {
            assert!(!LocalTime::from_unix(seconds).format("%c %Y").is_empty());
        }
    }
}
