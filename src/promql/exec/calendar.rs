//! Fields of a date in UTC, from seconds since the epoch.

use crate::plan::MapFn;

/// The field that `function` asks for.
pub(crate) fn field(function: MapFn, seconds: f64) -> f64 {
    // Go converts such values to a time far outside any calendar; there is no right answer to give.
    if !seconds.is_finite() || seconds.abs() > 1e15 {
        return f64::NAN;
    }
    let seconds = seconds.trunc() as i64;
    let (days, in_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let value = match function {
        MapFn::Minute => in_day / 60 % 60,
        MapFn::Hour => in_day / 3600,
        // 1970-01-01 was a Thursday; Sunday is 0.
        MapFn::DayOfWeek => (days + 4).rem_euclid(7),
        MapFn::DayOfMonth => day,
        MapFn::DayOfYear => days - days_from_civil(year, 1, 1) + 1,
        MapFn::DaysInMonth => {
            let (next_year, next_month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
            days_from_civil(next_year, next_month, 1) - days_from_civil(year, month, 1)
        }
        MapFn::Month => month,
        _ => year,
    };
    value as f64
}

/// Year, month and day of a day since the epoch, in the proleptic Gregorian calendar; years begin in March
/// within the computation, so that the leap day comes last.
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_index = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * month_index + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        // 2024-02-29 13:45:10, a Thursday.
        let t = 1_709_214_310.0;
        for (function, value) in [
            (MapFn::Year, 2024.0),
            (MapFn::Month, 2.0),
            (MapFn::DayOfMonth, 29.0),
            (MapFn::DaysInMonth, 29.0),
            (MapFn::DayOfYear, 60.0),
            (MapFn::DayOfWeek, 4.0),
            (MapFn::Hour, 13.0),
            (MapFn::Minute, 45.0),
        ] {
            assert_eq!(field(function, t), value, "{function:?}");
        }
        assert_eq!(field(MapFn::Year, -1.5), 1969.0);
        for days in [-800_000, -1, 0, 59, 60, 365, 20_000, 800_000] {
            let (y, m, d) = civil(days);
            assert_eq!(days_from_civil(y, m, d), days);
        }
    }
}
