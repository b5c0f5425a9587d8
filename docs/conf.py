"""How Sphinx builds the site. tools/docs.py lays out what it reads: this folder, and the reference made by
antsibull-docs."""

import re

from docutils import nodes

project = "beta9.workers"
copyright = "2026, the beta9.workers authors"  # pylint: disable=redefined-builtin
html_title = "beta9.workers"

extensions = ["myst_parser", "sphinx_copybutton", "sphinx_antsibull_ext"]
default_role = "any"
nitpicky = True

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

pygments_style = "ansible"
highlight_language = "text"
copybutton_prompt_text = "$ "
copybutton_only_copy_prompt_lines = True

html_theme = "furo"
html_show_sphinx = False
html_copy_source = False
html_use_index = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}

# What the reference points to in Ansible's own documentation. Spelt out, because the site is built without internet.
ANSIBLE = "https://docs.ansible.com/ansible/latest/"
LABELS = {
    "common_return_values": ("common return values", "reference_appendices/common_return_values.html"),
    "action_plugins": ("action plugin", "plugins/action.html"),
    "ansible_configuration_settings": ("Ansible's configuration settings", "reference_appendices/config.html"),
}


def ansibles_own(_app, _environment, reference, content):
    """Resolve what antsibull-docs writes as a reference into Ansible's documentation."""
    target = reference.get("reftarget", "")
    plugin = re.match(r"ansible_collections\.ansible\.builtin\.([a-z_]+?)_([a-z]+)(__|$)", target)
    if target in LABELS:
        title, page = LABELS[target]
    elif reference.get("reftype") == "envvar" and target.startswith("ANSIBLE_"):
        title, page = target, "reference_appendices/config.html#envvar-" + target
    elif plugin:
        title, page = (
            "ansible.builtin." + plugin.group(1),
            f"collections/ansible/builtin/{plugin.group(1)}_{plugin.group(2)}.html",
        )
    else:
        return None
    shown = content.astext()
    return nodes.reference(
        "", shown if reference.get("refexplicit") and shown else title, refuri=ANSIBLE + page, internal=False
    )


def setup(app):
    """Called by Sphinx."""
    app.connect("missing-reference", ansibles_own)
