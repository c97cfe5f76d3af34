// completion bash|zsh|fish: made from the parser's own tree, so that it cannot fall behind.
#include <cstdio>

#include "apps/cli/cli.h"

namespace headrace {

namespace {

std::string joined(const std::vector<std::string>& words) {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : " ") + word;
  return out;
}

std::vector<std::string> words_of(const CommandNames& command) {
  std::vector<std::string> out;
  for (const CommandNames& child : command.commands) out.push_back(child.name);
  for (const std::string& option : command.options) out.push_back(option);
  return out;
}

// One case per command: "tier push" → its words.
void bash_cases(const CommandNames& command, const std::string& path, std::string& out) {
  out += "    \"" + path + "\") words=\"" + joined(words_of(command)) + "\" ;;\n";
  for (const CommandNames& child : command.commands)
    bash_cases(child, path.empty() ? child.name : path + " " + child.name, out);
}

std::string bash(const CommandNames& root) {
  std::string cases;
  bash_cases(root, "", cases);
  std::vector<std::string> groups;
  for (const CommandNames& child : root.commands)
    if (!child.commands.empty()) groups.push_back(child.name);
  std::string group_pattern;
  for (const std::string& group : groups) group_pattern += (group_pattern.empty() ? "" : "|") + group;
  return "# bash completion of headrace: source <(headrace completion bash)\n"
         "_headrace() {\n"
         "  local current=\"${COMP_WORDS[COMP_CWORD]}\" previous=\"${COMP_WORDS[COMP_CWORD-1]}\" path=\"\" words=\"\" "
         "i\n"
         "  case \"$previous\" in\n"
         "    --state|--mount|--directory|mount|umount|unpack) compopt -o dirnames 2>/dev/null; COMPREPLY=($(compgen "
         "-d -- \"$current\")); return ;;\n"
         "    --protection) COMPREPLY=($(compgen -W \"4+2 8+2 2+1 replica-2 replica-3\" -- \"$current\")); return ;;\n"
         "    --bucket|rehydrate) COMPREPLY=($(compgen -W \"file:// s3:// az://\" -- \"$current\")); return ;;\n"
         "    completion) COMPREPLY=($(compgen -W \"bash zsh fish\" -- \"$current\")); return ;;\n"
         "  esac\n"
         "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
         "    case \"${COMP_WORDS[i]}\" in -*) continue ;; esac\n"
         "    if [ -z \"$path\" ]; then path=\"${COMP_WORDS[i]}\"\n"
         "    else case \"$path\" in " +
         group_pattern +
         ") path=\"$path ${COMP_WORDS[i]}\" ;; esac; fi\n"
         "  done\n"
         "  case \"$path\" in\n" +
         cases +
         "  esac\n"
         "  COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
         "  [ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- \"$current\"))\n"
         "}\n"
         "complete -F _headrace headrace\n";
}

std::string quoted(const std::string& text) {
  std::string out = "'";
  for (char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string fish(const CommandNames& root) {
  std::string out = "# fish completion of headrace: headrace completion fish | source\ncomplete -c headrace -f\n";
  for (const CommandNames& child : root.commands) {
    out += "complete -c headrace -n __fish_use_subcommand -a " + child.name + " -d " + quoted(child.about) + "\n";
    for (const CommandNames& grandchild : child.commands)
      out += "complete -c headrace -n '__fish_seen_subcommand_from " + child.name + "' -a " + grandchild.name + " -d " +
             quoted(grandchild.about) + "\n";
    auto options = [&](const CommandNames& command) {
      for (const std::string& option : command.options)
        if (option.starts_with("--"))
          out += "complete -c headrace -n '__fish_seen_subcommand_from " + command.name + "' -l " + option.substr(2) +
                 (option == "--state" || option == "--mount" || option == "--directory"
                      ? " -r -a '(__fish_complete_directories)'"
                      : "") +
                 "\n";
    };
    options(child);
    for (const CommandNames& grandchild : child.commands) options(grandchild);
  }
  return out;
}

}  // namespace

int run_completion(const std::string& shell, const CommandNames& root) {
  std::string text;
  if (shell == "bash") text = bash(root);
  // zsh runs bash's functions.
  if (shell == "zsh")
    text =
        "#compdef headrace\n# zsh completion of headrace: source <(headrace completion zsh)\nautoload -U +X "
        "bashcompinit && bashcompinit\n" +
        bash(root);
  if (shell == "fish") text = fish(root);
  if (text.empty()) return fail("completion for '" + shell + "' is not known: bash, zsh or fish");
  std::fputs(text.c_str(), stdout);
  return 0;
}

}  // namespace headrace
