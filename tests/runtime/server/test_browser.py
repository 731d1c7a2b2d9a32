"""How the tests of the page click: once, and not before a user could."""

import pytest

pytestmark = pytest.mark.real

PAGE = """data:text/html,<title>one</title><body><script>
  const clicks = [];
  const add = (id, disabled) => {
    const it = Object.assign(document.createElement('button'), {id, disabled});
    it.onclick = () => clicks.push(id);
    document.body.append(it);
    return it;
  };
  const late = add('late', true);
  setTimeout(() => late.disabled = false, 700);
  setTimeout(() => add('new'), 700);
  add('hidden').hidden = true;
  add('never', true);
</script><a id=link href="about:blank">away</a>
"""


def test_what_is_not_there_or_disabled_yet_is_clicked_once_as_soon_as_it_may(browser):
    browser.open(PAGE)
    for name in ("late", "new"):
        browser.click(f"document.getElementById('{name}')")
    assert browser.evaluate("clicks.join()") == "late,new"


@pytest.mark.parametrize("name", ["never", "hidden", "absent"])
def test_what_a_user_cannot_click_is_an_error(browser, name):
    browser.open(PAGE)
    with pytest.raises(AssertionError, match="^not true in the page within 0"):
        browser.click(f"document.getElementById('{name}')", timeout_s=0)
    assert browser.evaluate("clicks.length") == 0


def test_a_click_that_leads_away_is_one_click(browser):
    for _ in range(5):
        browser.open(PAGE)
        browser.wait_for("document.title == 'one'")
        browser.click("document.getElementById('link')")
        browser.wait_for("location.href == 'about:blank'")
