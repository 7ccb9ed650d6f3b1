//! The few plots that reports need, as inline SVG. Colours are told apart without colour vision too (Okabe and Ito).

use super::table::number;
use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 260.0;
/// Room for the axes' words.
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 44.0;
const COLOURS: [&str; 7] = [
    "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999",
];

/// A named line: its points in the order of x.
pub(super) type Line = (String, Vec<(f64, f64)>);

/// Lines over a common x axis, with a legend.
pub(super) fn lines(x_label: &str, y_label: &str, lines: &[Line]) -> String {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let (x_low, x_high) = range(points().map(|point| point.0), false);
    let (y_low, y_high) = range(points().map(|point| point.1), true);
    let x = |value: f64| LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - LEFT - RIGHT);
    let y =
        |value: f64| HEIGHT - BOTTOM - (value - y_low) / (y_high - y_low) * (HEIGHT - TOP - BOTTOM);
    let mut svg = open(WIDTH, HEIGHT, &format!("{y_label} over {x_label}"));
    for step in 0..=4 {
        let share = f64::from(step) / 4.0;
        let value = y_low + share * (y_high - y_low);
        let _ = write!(
            svg,
            "<line x1='{LEFT}' x2='{}' y1='{y:.1}' y2='{y:.1}' class='grid'/>\
             <text x='{}' y='{:.1}' text-anchor='end'>{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y(value) + 4.0,
            number(value),
            y = y(value),
        );
        let value = x_low + share * (x_high - x_low);
        let _ = write!(
            svg,
            "<text x='{:.1}' y='{}' text-anchor='middle'>{}</text>",
            x(value),
            HEIGHT - BOTTOM + 16.0,
            number(value)
        );
    }
    let _ = write!(
        svg,
        "<text x='{}' y='{}' text-anchor='middle'>{}</text>\
         <text transform='translate(12 {}) rotate(-90)' text-anchor='middle'>{}</text>",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 8.0,
        escape(x_label),
        (TOP + HEIGHT - BOTTOM) / 2.0,
        escape(y_label),
    );
    for ((name, points), colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let path: Vec<String> = points
            .iter()
            .map(|&(at, value)| format!("{:.1},{:.1}", x(at), y(value)))
            .collect();
        let _ = write!(
            svg,
            "<polyline points='{}' fill='none' stroke='{colour}' stroke-width='2'><title>{}</title></polyline>",
            path.join(" "),
            escape(name)
        );
    }
    svg.push_str("</svg>");
    svg + &legend(lines.iter().map(|(name, _)| name.as_str()))
}

/// A bar of parts for each row; `rows` hold a value for each of `parts`.
pub(super) fn stacked(unit: &str, parts: &[&str], rows: &[(String, Vec<f64>)]) -> String {
    const ROW: f64 = 26.0;
    const NAMES: f64 = 190.0;
    let height = TOP + ROW * rows.len() as f64 + BOTTOM;
    let longest = rows.iter().map(|(_, values)| values.iter().sum::<f64>());
    let (_, high) = range(longest, true);
    let scale = (WIDTH - NAMES - 70.0) / high;
    let mut svg = open(WIDTH, height, unit);
    for (row, (name, values)) in rows.iter().enumerate() {
        let y = TOP + ROW * row as f64;
        let mut x = NAMES;
        let _ = write!(
            svg,
            "<text x='{}' y='{:.1}' text-anchor='end'>{}</text>",
            NAMES - 8.0,
            y + 16.0,
            escape(name)
        );
        for ((part, &value), colour) in parts.iter().zip(values).zip(COLOURS.iter().cycle()) {
            let width = value * scale;
            let _ = write!(
                svg,
                "<rect x='{x:.1}' y='{:.1}' width='{width:.1}' height='{}' fill='{colour}'><title>{}: {} {}</title></rect>",
                y + 3.0,
                ROW - 8.0,
                escape(part),
                number(value),
                escape(unit)
            );
            x += width;
        }
        let _ = write!(
            svg,
            "<text x='{:.1}' y='{:.1}'>{}</text>",
            x + 6.0,
            y + 16.0,
            number(values.iter().sum())
        );
    }
    let _ = write!(
        svg,
        "<text x='{NAMES}' y='{}'>{}</text></svg>",
        height - 14.0,
        escape(unit)
    );
    svg + &legend(parts.iter().copied())
}

/// How far each value is from its target, on a logarithmic scale: left of the line is better. `rows` hold the ratio.
pub(super) fn against_targets(rows: &[(String, f64)]) -> String {
    const ROW: f64 = 22.0;
    const NAMES: f64 = 330.0;
    /// Ratios beyond are drawn at the edge; the number stands beside them.
    const EDGE: f64 = 16.0;
    let width = 840.0;
    let height = TOP + ROW * rows.len() as f64 + 34.0;
    let middle = NAMES + (width - NAMES - 60.0) / 2.0;
    let half = (width - NAMES - 60.0) / 2.0;
    let mut svg = open(width, height, "distance from the target");
    for (row, (name, ratio)) in rows.iter().enumerate() {
        let y = TOP + ROW * row as f64;
        let reach = ratio.max(1e-9).log(EDGE).clamp(-1.0, 1.0) * half;
        let (x, length) = (middle + reach.min(0.0), reach.abs().max(1.0));
        let class = if *ratio <= 1.0 { "met" } else { "missed" };
        let _ = write!(
            svg,
            "<text x='{}' y='{:.1}' text-anchor='end'>{}</text>\
             <rect x='{x:.1}' y='{:.1}' width='{length:.1}' height='{}' class='{class}'/>\
             <text x='{:.1}' y='{:.1}'>{}×</text>",
            NAMES - 8.0,
            y + 15.0,
            escape(name),
            y + 3.0,
            ROW - 7.0,
            middle + reach.max(0.0) + 6.0,
            y + 15.0,
            number(*ratio)
        );
    }
    let _ = write!(
        svg,
        "<line x1='{middle}' x2='{middle}' y1='{TOP}' y2='{0}' class='target'/>\
         <text x='{middle}' y='{1}' text-anchor='middle'>target (left is better; logarithmic)</text></svg>",
        height - 26.0,
        height - 10.0
    );
    svg
}

fn open(width: f64, height: f64, label: &str) -> String {
    format!(
        "<svg viewBox='0 0 {width} {height}' width='{width}' role='img' aria-label='{}'>",
        escape(label)
    )
}

fn legend<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let mut html = String::from("<p class='legend'>");
    for (name, colour) in names.zip(COLOURS.iter().cycle()) {
        let _ = write!(
            html,
            "<span><i style='background:{colour}'></i>{}</span>",
            escape(name)
        );
    }
    html + "</p>"
}

/// Lowest and highest value, never the same; from zero where asked for.
fn range(values: impl Iterator<Item = f64>, from_zero: bool) -> (f64, f64) {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.filter(|value| value.is_finite()) {
        low = low.min(value);
        high = high.max(value);
    }
    if !low.is_finite() {
        return (0.0, 1.0);
    }
    if from_zero {
        low = low.min(0.0);
    }
    if high > low {
        (low, high)
    } else {
        (low, low + 1.0)
    }
}

/// Text for element content and for attributes in either quotes.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

#[cfg(test)]
mod tests {
    use super::{escape, lines, range};

    #[test]
    fn ranges_are_never_empty() {
        assert_eq!(range([].into_iter(), true), (0.0, 1.0));
        assert_eq!(range([3.0, 3.0].into_iter(), false), (3.0, 4.0));
        assert_eq!(range([3.0, 5.0, f64::NAN].into_iter(), true), (0.0, 5.0));
    }

    #[test]
    fn lines_stay_within_the_picture_and_names_are_escaped() {
        let svg = lines(
            "s",
            "runs",
            &[("<a>".to_owned(), vec![(0.0, 1.0), (10.0, 2.0)])],
        );
        assert!(svg.contains("points='64.0,114.0 624.0,12.0'"), "{svg}");
        assert!(svg.contains("&lt;a&gt;") && !svg.contains("<a>"));
        assert_eq!(escape("'&\""), "&#39;&amp;&quot;");
    }
}
