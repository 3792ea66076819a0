//! Chat templates by the names that llama-server gives them, for models whose files bring none.

/// The templates by name.
const TEMPLATES: [(&str, &str); 10] = [
    (
        "chatml",
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}\
         {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    ),
    (
        "command-r",
        "{% set names = {'system': 'SYSTEM', 'user': 'USER', 'assistant': 'CHATBOT'} %}\
         {% for m in messages %}<|START_OF_TURN_TOKEN|><|{{ names[m.role] }}_TOKEN|>{{ m.content | trim }}\
         <|END_OF_TURN_TOKEN|>{% endfor %}\
         {% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}",
    ),
    (
        "gemma",
        "{{ bos_token }}{% set s = namespace(system='') %}{% for m in messages %}\
         {% if m.role == 'system' %}{% set s.system = m.content | trim + '\n\n' %}{% else %}\
         <start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n\
         {{ s.system + m.content | trim }}<end_of_turn>\n{% set s.system = '' %}{% endif %}{% endfor %}\
         {% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    ),
    (
        "llama2",
        "{% set s = namespace(system='') %}{% for m in messages %}{% if m.role == 'system' %}\
         {% set s.system = '<<SYS>>\n' + m.content + '\n<</SYS>>\n\n' %}{% elif m.role == 'user' %}\
         {{ bos_token }}[INST] {{ s.system + m.content }} [/INST]{% set s.system = '' %}\
         {% else %} {{ m.content }} {{ eos_token }}{% endif %}{% endfor %}",
    ),
    (
        "llama3",
        "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n\
         {{ m.content | trim }}<|eot_id|>{% endfor %}\
         {% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}",
    ),
    (
        "mistral-v1",
        "{{ bos_token }}{% set s = namespace(system='') %}{% for m in messages %}\
         {% if m.role == 'system' %}{% set s.system = m.content + '\n\n' %}{% elif m.role == 'user' %}\
         {{ ' [INST] ' + s.system + m.content + ' [/INST]' }}{% set s.system = '' %}\
         {% else %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}",
    ),
    (
        "phi3",
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}\
         {% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    ),
    (
        "phi4",
        "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>{% endfor %}\
         {% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}",
    ),
    (
        "vicuna",
        "{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}\n\n{% elif m.role == 'user' %}\
         USER: {{ m.content }}\n{% else %}ASSISTANT: {{ m.content }}</s>\n{% endif %}{% endfor %}\
         {% if add_generation_prompt %}ASSISTANT:{% endif %}",
    ),
    (
        "zephyr",
        "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content + eos_token }}\n{% endfor %}\
         {% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    ),
];

/// The template of that name.
pub fn named(name: &str) -> Option<&'static str> {
    TEMPLATES.iter().find(|(other, _)| *other == name).map(|(_, text)| *text)
}

/// All names, for messages.
pub fn names() -> String {
    TEMPLATES.map(|(name, _)| name).join(", ")
}

#[cfg(test)]
mod tests {
    use crate::chat::{Message, Template};
    use std::collections::BTreeMap;

    /// What llama-server writes for these names.
    #[test]
    fn templates_have_names() {
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
        let tokens: BTreeMap<_, _> = tokens.map(|(name, text)| (name.to_owned(), text.to_owned())).into();
        let talk =
            [("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Who are you?")];
        let talk = talk.map(|(role, content)| Message::new(role, content));
        for (name, expected) in [
            (
                "chatml",
                "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
                 <|im_start|>assistant\nHello<|im_end|>\n<|im_start|>user\nWho are you?<|im_end|>\n\
                 <|im_start|>assistant\n",
            ),
            (
                "command-r",
                "<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>Be brief.<|END_OF_TURN_TOKEN|>\
                 <|START_OF_TURN_TOKEN|><|USER_TOKEN|>Hi<|END_OF_TURN_TOKEN|>\
                 <|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>Hello<|END_OF_TURN_TOKEN|>\
                 <|START_OF_TURN_TOKEN|><|USER_TOKEN|>Who are you?<|END_OF_TURN_TOKEN|>\
                 <|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
            ),
            (
                "gemma",
                "<s><start_of_turn>user\nBe brief.\n\nHi<end_of_turn>\n\
                 <start_of_turn>model\nHello<end_of_turn>\n\
                 <start_of_turn>user\nWho are you?<end_of_turn>\n<start_of_turn>model\n",
            ),
            (
                "llama2",
                "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello </s>\
                 <s>[INST] Who are you? [/INST]",
            ),
            (
                "llama3",
                "<s><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>\
                 <|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>\
                 <|start_header_id|>assistant<|end_header_id|>\n\nHello<|eot_id|>\
                 <|start_header_id|>user<|end_header_id|>\n\nWho are you?<|eot_id|>\
                 <|start_header_id|>assistant<|end_header_id|>\n\n",
            ),
            ("mistral-v1", "<s> [INST] Be brief.\n\nHi [/INST] Hello</s> [INST] Who are you? [/INST]"),
            (
                "phi3",
                "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\nHello<|end|>\n\
                 <|user|>\nWho are you?<|end|>\n<|assistant|>\n",
            ),
            (
                "phi4",
                "<|im_start|>system<|im_sep|>Be brief.<|im_end|><|im_start|>user<|im_sep|>Hi<|im_end|>\
                 <|im_start|>assistant<|im_sep|>Hello<|im_end|>\
                 <|im_start|>user<|im_sep|>Who are you?<|im_end|>\
                 <|im_start|>assistant<|im_sep|>",
            ),
            ("vicuna", "Be brief.\n\nUSER: Hi\nASSISTANT: Hello</s>\nUSER: Who are you?\nASSISTANT:"),
            (
                "zephyr",
                "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello</s>\n\
                 <|user|>\nWho are you?</s>\n<|assistant|>\n",
            ),
        ] {
            let template = Template::given(name, tokens.clone()).expect("a name");
            assert_eq!(template.render(&talk, true).expect(name), expected, "{name}");
        }
        let error = Template::given("chat-ml", tokens).err().expect("neither a name nor a template");
        assert!(error.to_string().contains("chatml"), "{error}");
    }
}
