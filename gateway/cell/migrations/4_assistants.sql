ALTER TABLE usage_row ADD COLUMN assistant text;
CREATE TABLE total_assistant_day (day text, assistant text, series bigint, $sums,
    PRIMARY KEY (day, assistant, series));
